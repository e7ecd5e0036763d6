"""The operator's own texts in the judge's prompts: read from files, checked, handed to the judge, and told by version."""

import hashlib
from pathlib import Path

import pytest

from cappella.config import Config, load
from cappella.config.overrides import Overrides
from cappella.ensemble import prompts
from cappella.ensemble.settings import resolve
from cappella.errors import ConfigError
from cappella.telemetry.trace import FullDetail, fusion
from cappella.types import Prompt, Sampling
from support.fake_engines import FakeEngines, last_message

CONFIG = """models:
  ann: {{weights: w, max_model_len: 100}}
ensembles:
  default:
    panel: [ann]
    judge: {judge}
"""


def loaded(folder: Path, judge: str) -> Config:
    (folder / "c.yaml").write_text(CONFIG.format(judge=judge))
    return load.load(folder / "c.yaml")


def test_the_texts_of_the_files_are_in_the_settings_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "compare.txt").write_text("Compare. {criteria}\n")
    config = loaded(tmp_path, "{model: ann, own_knowledge: true, prompts: {compare: compare.txt}}")
    prompt = Prompt([{"role": "user", "content": "Hi"}])
    settings = resolve("default", config.ensembles["default"], config.models, Overrides(), prompt, Sampling())
    assert settings.judge_texts == {"compare": "Compare. {criteria}"}
    assert settings.own_knowledge
    again = type(config).model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert again.ensembles["default"].judge.prompts.texts == settings.judge_texts


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("introduce", "Answers follow.", "{nonce} is missing"),
        ("compare", "Compare by {criterion}", "no placeholder {criterion}: it may have {criteria}"),
        ("agree", "Agree on {criteria}?", "no placeholder {criteria}: it has none"),
        ("write", None, "cannot read"),
        ("write", "", "at least 1 character"),
    ],
)
def test_a_text_that_cannot_be_used_is_told_with_its_line(
    tmp_path: Path, name: str, text: str | None, problem: str
) -> None:
    if text is not None:
        (tmp_path / "own.txt").write_text(text)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"{{model: ann, prompts: {{{name}: own.txt}}}}")
    assert problem in str(caught.value)
    assert "c.yaml:6: " in str(caught.value)


def test_a_list_of_judges_is_one_judge_and_those_who_stand_in(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "models:\n  ann: {weights: w, max_model_len: 100}\n  big: {weights: v, max_model_len: 100}\n"
        "ensembles:\n  default: {panel: [ann], judge: [big, {model: ann, criteria: Be kind.}]}\n"
    )
    config = load.load(tmp_path / "c.yaml")
    prompt = Prompt([{"role": "user", "content": "Hi"}])
    settings = resolve("default", config.ensembles["default"], config.models, Overrides(), prompt, Sampling())
    assert settings.judge == "big"
    assert [(each.model, each.criteria) for each in settings.next_judges] == [("ann", "Be kind.")]
    assert config.judges == {"big"}
    assert config.ensembles["default"].can_answer(["ann"])
    named = resolve("default", config.ensembles["default"], config.models, Overrides(judge="big"), prompt, Sampling())
    assert named.next_judges == ()


@pytest.mark.parametrize(("judge", "problem"), [("[ann, gone]", "no model 'gone'"), ("[ann, ann]", "stands twice")])
def test_a_judge_in_a_list_is_checked_as_any(tmp_path: Path, judge: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, judge)


async def test_the_judge_reads_own_texts_and_the_trace_has_their_version(fake_engines: FakeEngines) -> None:
    texts = {
        "introduce": "Own begin {nonce}.",
        "compare": "Now compare the answers. {criteria} Go.",
        "write": "Own end.",
    }
    run = await fake_engines.run(judge_texts=texts, criteria="Be kind.", own_knowledge=True)
    final = last_message(fake_engines.servers["judge"].bodies[-1])
    compare = next(last_message(b) for b in fake_engines.servers["judge"].bodies if "response_format" in b)
    assert "Own begin " in final
    assert prompts.INTRODUCTION[:40] not in final
    assert final.endswith("Own end." + prompts.OWN_KNOWLEDGE + prompts.CRITERIA_NOTE + "Be kind.")
    assert compare.endswith("Now compare the answers. Be kind. Go.")
    trace = fusion(run, FullDetail())
    assert trace["prompts"]["write"] == hashlib.sha256(b"Own end.").hexdigest()[:12]
    assert trace["own_knowledge"] is True
