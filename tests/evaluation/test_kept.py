"""What an evaluation keeps and by what: outcomes that last, under the identity of all that made them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.evaluation import asking, server
from cappella.evaluation.asking import Asking, Plan
from cappella.evaluation.data import Question
from cappella.evaluation.ensemble import Ensemble, Member
from cappella.evaluation.outcomes import Results
from cappella.evaluation.progress import Pace
from cappella.evaluation.store import Store
from cappella.tools.sandbox import Limits, Sandbox
from support.command_line import cappella
from support.scripted_cappella import ScriptedCappella

USER = [{"role": "user", "content": "?"}]


def one_member(**says: Any) -> ScriptedCappella:
    return ScriptedCappella(says={"ann": lambda body: "```python\nx = 1\n```", **says}, panel=["ann"])


async def asked(url: str, store: Path, question: Question, limits: Limits = Limits()) -> Results:
    ensemble = Ensemble("default", [Member("ann", "ann")], "ann", {}, {}, {}, "")
    plan = Plan([question], ensemble, [], False, "auto", "ann", samples=0)
    kept = Store(store)
    try:
        async with server.session() as http:
            box = Sandbox(limits, namespaces=False)
            return await Asking(plan, server.Server(http, url), kept, box, Pace(1), lambda way: None).all()
    finally:
        kept.close()


def right(results: Results) -> bool:
    (outcome,) = results.members["ann"]
    assert outcome
    return outcome.right


async def test_a_test_that_ran_out_of_time_runs_again_the_next_time(tmp_path: Path) -> None:
    question = Question("q", USER, tests="import time\ntime.sleep(1)")
    async with one_member().serving() as url:
        assert not right(await asked(url, tmp_path / "kept", question, Limits(wall_s=0.1)))
        assert right(await asked(url, tmp_path / "kept", question))


async def test_a_program_that_used_up_its_cpu_stays_wrong(tmp_path: Path) -> None:
    question = Question("q", USER, tests="import time\nwhile time.process_time() < 1.5: pass")
    async with one_member().serving() as url:
        assert not right(await asked(url, tmp_path / "kept", question, Limits(cpu_s=1)))
        assert not right(await asked(url, tmp_path / "kept", question))


async def test_another_version_asks_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = one_member()
    async with scripted.serving() as url:
        for version in ("1", "1", "2"):
            monkeypatch.setattr(asking, "__version__", version)
            await asked(url, tmp_path / "kept", Question("q", USER, "x"))
    assert len(scripted.bodies) == 2


async def test_seconds_are_those_of_the_call_without_the_waiting() -> None:
    waited = [0.0]

    async def pause(seconds: float) -> None:
        waited[0] += seconds

    scripted = one_member()
    scripted.busy = 3
    async with scripted.serving() as url, server.session() as http:
        client = server.Server(http, url, pause=pause, clock=lambda: waited[0])
        answer = await client.ask({"model": "ann", "messages": USER})
    assert waited[0] > 0
    assert answer.seconds == 0


async def test_other_weights_of_a_rubrics_judge_judge_anew(tmp_path: Path) -> None:
    weights = tmp_path / "other"
    for folder in (weights, tmp_path / "weights"):
        folder.mkdir()
    config = {
        "models": {
            name: {"weights": "other" if name == "other" else "weights", "max_model_len": 100}
            for name in ("ann", "bob", "judge", "other")
        },
        "ensembles": {"default": {"panel": ["ann", "bob"], "judge": "judge"}},
    }
    path, data = tmp_path / "own.yaml", tmp_path / "q.jsonl"
    path.write_text(yaml.safe_dump(config))
    data.write_text(json.dumps({"prompt": "?", "rubric": "is kind"}))
    scripted = ScriptedCappella(
        says={"ann": lambda body: "dear", "bob": lambda body: "dear", "other": lambda body: "yes"}, panel=["ann", "bob"]
    )
    options = ("--ways", "select", "--rubric-judge", "other", "--json", tmp_path / "out.json", "--samples", "1")
    async with scripted.serving() as url:
        for text in ("one", "one", "two"):
            (weights / "model.safetensors").write_text(text)
            done = await asyncio.to_thread(cappella, "eval", path, data, "--url", url, *options)
            assert done.returncode == 0, done.stderr
    assert (len(scripted.asked("other")), len(scripted.asked("bob"))) == (2, 1)
