"""A real engine on the CPU that sleeps when nobody calls it, and wakes for the next call."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.real_deployment import Deployment, command_of, deployed, shipped_config, wait_for

pytestmark = pytest.mark.vllm
SLEEP_AFTER_S = 3.0
SLEEP_TIMEOUT_S = 60
WAKE_TIMEOUT_S = 240
QUESTION = {"role": "user", "content": "Please tell me the room of Gonil."}


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One member of the demo, which is its own judge."""
    folder = tmp_path_factory.mktemp("sleepy")
    config = shipped_config("demo.yaml")
    config["models"] = {"alto": {**config["models"]["alto"], "sleep_after_s": SLEEP_AFTER_S}}
    config["ensembles"] = {"default": {"panel": ["alto"], "judge": "alto", "analysis": "off"}}
    (folder / "sleepy.yaml").write_text(json.dumps(config))
    with deployed(folder / "sleepy.yaml", folder / "logs") as deployment:
        yield deployment


def alto(sleepy: Deployment) -> Any:
    return sleepy.get("/ready")["engines"]["alto"]


def ask(sleepy: Deployment, model: str) -> Any:
    body = {"model": model, "messages": [QUESTION], "temperature": 0, "max_completion_tokens": 20}
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{sleepy.url}/v1/chat/completions", data, headers)
    with urllib.request.urlopen(request, timeout=WAKE_TIMEOUT_S) as reply:
        return json.load(reply)


def falls_asleep(sleepy: Deployment) -> bool:
    def is_asleep() -> bool:
        return alto(sleepy)["state"] == "asleep" and not any("alto" in command_of(pid) for pid in sleepy.processes())

    return wait_for(is_asleep, SLEEP_TIMEOUT_S)


def test_an_engine_sleeps_without_a_process_and_answers_the_next_call_as_before(sleepy: Deployment) -> None:
    before = ask(sleepy, "alto")["choices"][0]["message"]["content"]
    assert before
    assert falls_asleep(sleepy)
    assert sleepy.get("/ready")["ready"]
    assert ask(sleepy, "alto")["choices"][0]["message"]["content"] == before
    woken = alto(sleepy)
    assert (woken["wakes"], woken["restarts"], woken["last_failure"]) == (1, 0, None)
    assert woken["last_wake_s"] > 0


def test_a_run_wakes_its_member_and_the_journal_tells_of_it(sleepy: Deployment) -> None:
    assert falls_asleep(sleepy)
    wakes = alto(sleepy)["wakes"]
    reply = ask(sleepy, "cappella/default")
    assert reply["fusion"]["failed_models"] == []
    assert wait_for(lambda: alto(sleepy)["wakes"] == wakes + 1, 10)
    journal = sleepy.log_dir / "gateway.log"
    for said in ("alto sleeps: no call for a while", r"alto woke for a call, in \d+\.\d s"):
        line = rf"(?m)^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d {said}"
        assert wait_for(lambda line=line: re.search(line, Path(journal).read_text()) is not None, 10)  # type: ignore[misc]
