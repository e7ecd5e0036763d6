"""Runs that need no judge: a `select` by other evidence never asks one, and a vote only at a tie."""

from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cappella.config import Config, load
from cappella.config.judge_seat import JudgeSeat
from cappella.config.overrides import Overrides
from cappella.config.weighing import Agreement, Selection
from cappella.ensemble.capacity import context_length
from cappella.ensemble.settings import resolve
from cappella.errors import ConfigError, ModelNotReady
from cappella.evaluation.ensemble import from_server
from cappella.types import Capabilities, Prompt, Sampling
from support.fake_engines import MEMBERS, FakeEngines, choice_script, gateway_config, serving
from support.recorded_gateway import ask, client, recording_config
from support.scripted_engine import Script

BY_AGREEMENT: dict[str, Any] = {"strategy": "select", "select": Selection(by=("agreement",))}
WAYS = [BY_AGREEMENT, {"strategy": "vote"}]


@pytest.fixture(autouse=True)
def answers(fake_engines: FakeEngines) -> None:
    for name, text in zip(MEMBERS, ("a blue sky", "red", "A blue sky."), strict=True):
        fake_engines.let(name, Script((text,)))


def noted_wakes(fake_engines: FakeEngines, state: Any) -> list[str]:
    """Puts the judge into this state; returns a list which grows when a run keeps it awake."""
    woken = list[str]()

    class Woken:
        def __enter__(self) -> None:
            woken.append("judge")

        def __exit__(self, *_: object) -> None: ...

    judge: Any = fake_engines.engines["judge"]
    judge.status.state, judge._keep_awake = state, Woken
    return woken


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", ["failed", "loading", "asleep"])
async def test_a_judge_that_is_not_up_is_not_missed(fake_engines: FakeEngines, way: Any, state: Any) -> None:
    woken = noted_wakes(fake_engines, state)
    run = await fake_engines.run(**way, next_judges=(JudgeSeat("cat"),))
    assert ("blue" in run.content, run.status, run.failed_judges) == (True, "ok", [])
    server = fake_engines.servers["judge"]
    assert (server.bodies, server.counted, woken) == ([], 0, [])


@pytest.mark.parametrize("way", WAYS)
async def test_a_judge_that_groups_is_waited_for_and_woken(fake_engines: FakeEngines, way: Any) -> None:
    by_judge = {**way, "agreement": Agreement(by="judge")}
    noted_wakes(fake_engines, "loading")
    with pytest.raises(ModelNotReady, match="the judge judge is loading"):
        await fake_engines.run(**by_judge)
    fake_engines.let("judge", Script(('{"A": "A", "B": "B"}',)))
    woken = noted_wakes(fake_engines, "ready")
    run = await fake_engines.run(**by_judge)
    assert (woken, run.status) == (["judge"], "ok")


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_prefilled_for_a_judge_who_may_read_nothing(fake_engines: FakeEngines, way: Any) -> None:
    for name, text in zip(MEMBERS, ("blue sky " * 2000, "red", "blue sky " * 2000), strict=True):
        fake_engines.let(name, Script((text,), pause_s=0.2 if name == "cat" else 0))
    await fake_engines.run(**way)
    assert fake_engines.servers["judge"].bodies == []


async def test_a_tie_asks_the_judge_and_the_next_one_where_it_is_dead(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", lambda body: choice_script(red=0.9)(body) if "structured_outputs" in body else Script())
    fake_engines.engines["judge"].status.state = "failed"
    run = await fake_engines.run(strategy="vote", next_judges=(JudgeSeat("cat"),))
    assert (run.content, run.status, [each.model for each in run.failed_judges]) == ("red", "degraded", ["judge"])


async def test_a_tie_without_any_judge_is_decided_by_the_words_and_told(fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(("green",)))
    fake_engines.engines["judge"].status.state = "failed"
    run = await fake_engines.run(strategy="vote")
    assert (run.status, run.failure_reason) == ("degraded", "not_ready")
    assert run.content in ("a blue sky", "red", "green")


async def test_a_judge_that_writes_nothing_is_not_asked_where_it_does_not_count(fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].capabilities = Capabilities(task="reward")
    run = await fake_engines.run(**BY_AGREEMENT)
    assert ("blue" in run.content, run.verdict.scores) == (True, None)


CONFIG = """models:
  ann: {url: "http://127.0.0.1:9/v1", max_model_len: 100}
  bob: {weights: w, max_model_len: 50}
ensembles:
  default:
    panel: [{model: ann, temperature: 0.5}, bob]
"""
BY_OTHERS = "    strategy: select\n    select: {by: [agreement, weights]}\n"
BEST = '    presets: {best: {strategy: synthesize, analysis: "off", judge: bob}}\n'


def loaded(folder: Path, options: str) -> Config:
    (folder / "c.yaml").write_text(CONFIG + options)
    return load.load(folder / "c.yaml")


@pytest.mark.parametrize("options", [BY_OTHERS, BY_OTHERS + BEST])
def test_a_config_needs_no_judge_where_no_run_needs_one(tmp_path: Path, options: str) -> None:
    config = loaded(tmp_path, options)
    ensemble = config.ensembles["default"]
    assert (ensemble.judge.model, ensemble.can_answer(["ann", "bob"])) == ("ann", True)
    # The first member stands in its place, though its server could not choose.
    prompt = Prompt([{"role": "user", "content": "Hi"}])
    settings = resolve("default", ensemble, config.models_by_name, Overrides(), prompt, Sampling())
    assert (settings.judge, settings.may_ask_judge) == ("ann", False)
    assert context_length(ensemble, config.models_by_name) == 50
    again = Config.model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert again.ensembles["default"].judge.model == "ann"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("", "c.yaml:5: ensembles.default.judge: this key is missing"),
        ("    strategy: debate\n", "ensembles.default.judge: this key is missing"),
        ("    strategy: select\n", "ensembles.default.judge: this key is missing"),
        (BY_OTHERS + BEST.replace(", judge: bob", ""), "ensembles.default.judge: this key is missing"),
        ("    strategy: vote\n", "ann cannot judge here"),
        (BY_OTHERS + "    agreement: {by: judge}\n", "ann cannot judge here: agreement: judge"),
        (BY_OTHERS + "    agreement: {by: embedding, alike: 0.9}\n", "agreement names None, which embeds nothing"),
        (
            BY_OTHERS + "    agreement: {by: embedding, model: bob, alike: 0.9}\n",
            "agreement names 'bob', which embeds nothing",
        ),
        (
            BY_OTHERS + "    agreement: {by: embedding, model: bob}\n",
            "c.yaml:9: ensembles.default.agreement: by: embedding needs alike",
        ),
    ],
)
def test_a_judge_that_is_missing_or_lacks_something_is_told(tmp_path: Path, options: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, options)
    assert problem in str(caught.value)


@pytest.mark.parametrize("strategy", ["vote", "synthesize"])
@pytest.mark.parametrize(
    ("panel", "problem"),
    [
        ("[{modle: ann}]", "default.panel.0.modle: unknown key. Did you mean model?"),
        ("ann", "default.panel: input should be a valid tuple"),
        ("[[ann]]", "default.panel.0: input should be a valid dictionary or instance of Member"),
        ("['a b']", "default.panel.0: string should match pattern"),
        ("[]", "default.panel: tuple should have at least 1 item"),
    ],
)
def test_a_mistake_of_a_panel_without_a_judge_is_told_of_the_panel(
    tmp_path: Path, panel: str, problem: str, strategy: str
) -> None:
    text = CONFIG.replace("[{model: ann, temperature: 0.5}, bob]", panel)
    (tmp_path / "c.yaml").write_text(f"{text}    strategy: {strategy}\n")
    with pytest.raises(ConfigError) as caught:
        load.load(tmp_path / "c.yaml")
    assert problem in str(caught.value)
    assert all("judge" not in each.place for each in getattr(caught.value, "errors", [caught.value]))


def test_a_preset_is_checked_with_the_options_that_it_takes_over(tmp_path: Path) -> None:
    config = loaded(tmp_path, BY_OTHERS + "    presets: {more: {samples: 3}}\n")
    assert config.ensembles["default"].presets["more"].samples == 3


@pytest.mark.parametrize("way", WAYS)
async def test_a_gateway_is_not_ready_while_a_judge_that_groups_is_loading(fake_engines: FakeEngines, way: Any) -> None:
    fake_engines.engines["judge"].status.state = "loading"
    config = gateway_config(**way, agreement=Agreement(by="judge"))
    async with serving(fake_engines, config) as url, aiohttp.ClientSession() as http:
        async with http.get(f"{url}/ready") as reply:
            ready = reply.status
        body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        async with http.post(f"{url}/v1/chat/completions", json=body) as reply:
            assert (ready, reply.status, "Retry-After" in reply.headers) == (503, 503, True)


@pytest.mark.parametrize(("way", "judge"), [(BY_AGREEMENT, None), ({"strategy": "vote"}, "judge")])
async def test_a_judge_that_no_run_asks_is_named_nowhere(
    fake_engines: FakeEngines, tmp_path: Path, way: Any, judge: str | None
) -> None:
    async with client(fake_engines, recording_config(tmp_path, ensemble=way)) as http:
        listed, told = [await (await http.get(path)).json() for path in ("/v1/models/cappella/default", "/api/machine")]
        body = (await ask(http, stream=True, fusion={"include_events": True}))[1]
    assert (listed["judge"], told["ensembles"]["default"]["judge"]) == (judge, judge)
    sent = [orjson.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    began = next(each["fusion_event"] for each in sent if each.get("fusion_event", {}).get("type") == "run.started")
    assert (began["judge"], sent[-1]["fusion"]["judge_model"]) == (judge, judge)
    lines = map(orjson.loads, (tmp_path / "audit.jsonl").read_bytes().splitlines())
    (line,) = [each for each in lines if each["kind"] == "run"]
    assert (line["judge"], set(line["weights"])) == (judge, {*MEMBERS, *([judge] if judge else [])})


def test_an_evaluation_has_the_first_member_judge_where_a_server_names_no_judge() -> None:
    listed = {"cappella/default": {"id": "cappella/default", "panel": ["ann", "bob"], "judge": None}}
    assert from_server(listed, "default", "http://127.0.0.1:9").judge == "ann"


async def test_a_gateway_is_ready_without_a_judge_that_it_does_not_need(fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].status.state = "failed"
    async with serving(fake_engines, gateway_config(**BY_AGREEMENT)) as url, aiohttp.ClientSession() as http:
        async with http.get(f"{url}/ready") as reply:
            ready = reply.status
        body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        async with http.post(f"{url}/v1/chat/completions", json=body) as reply:
            answer = await reply.json()
    assert (ready, reply.status, answer["fusion"]["status"]) == (200, 200, "ok")
