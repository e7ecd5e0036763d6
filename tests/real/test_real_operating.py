"""An operator's wishes and looks, on real engines."""

import json
import urllib.request
from typing import Any

import pytest

from support.real_deployment import Deployment, memory_bytes, wait_for

pytestmark = pytest.mark.vllm
RESTART_TIMEOUT_S = 180
QUESTION = {"role": "user", "content": "Please tell me the room of Gonil."}


def machine(demo: Deployment) -> Any:
    return demo.get("/api/machine")


def post(demo: Deployment, path: str, body: Any = None) -> Any:
    data, headers = json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(demo.url + path, data, headers), timeout=60) as reply:
        return json.load(reply)


def ask(demo: Deployment) -> Any:
    return post(demo, "/v1/chat/completions", {"model": "cappella/default", "messages": [QUESTION]})["fusion"]


def speed(demo: Deployment, name: str) -> float:
    return float(machine(demo)["engines"][name]["tokens_per_s"] or 0)


def comes_up(demo: Deployment, name: str) -> bool:
    return wait_for(lambda: machine(demo)["engines"][name]["state"] == "ready", RESTART_TIMEOUT_S)


def test_the_engines_own_figures_and_what_they_hold_are_told(demo: Deployment) -> None:
    machine(demo)
    # None until there are two figures to compare, or while an engine does not say its own.
    assert wait_for(lambda: ask(demo)["status"] == "ok" and speed(demo, "alto") > 0, 60)
    # At any moment an engine may be asked for a token, to see whether it is well.
    assert wait_for(lambda: not any(engine["running"] for engine in machine(demo)["engines"].values()), 30)
    told = machine(demo)
    (memory,) = told["memory"]
    for name, engine in told["engines"].items():
        assert (engine["state"], engine["remaining_s"]) == ("ready", None)
        assert engine["kv_usage"] == pytest.approx(0, abs=0.5)
        assert sum(engine["planned"].values()) == memory["engines"][name]
        assert 50 << 20 < engine["used_bytes"] < 2 * memory["engines"][name]
    # What all processes hold together, less the gateway and the fork server, as it was some seconds ago.
    held = sum(engine["used_bytes"] for engine in told["engines"].values())
    assert held < memory_bytes(demo.processes()) * 1.25


def test_a_member_restarts_sleeps_and_wakes_and_the_others_answer_meanwhile(demo: Deployment) -> None:
    core = demo.engine_core("alto")
    assert post(demo, "/api/engines/alto/restart")["state"] == "restarting"
    assert ask(demo)["status"] == "degraded"
    assert wait_for(lambda: machine(demo)["engines"]["alto"]["remaining_s"] is not None, 60)
    assert comes_up(demo, "alto")
    assert demo.engine_core("alto") != core
    assert machine(demo)["engines"]["alto"]["used_bytes"] > 50 << 20
    assert post(demo, "/api/engines/alto/sleep")["state"] == "stopped"
    assert wait_for(lambda: machine(demo)["engines"]["alto"]["actions"] == ["wake"], 30)
    assert wait_for(lambda: machine(demo)["engines"]["alto"]["used_bytes"] is None, 15)
    assert ask(demo)["status"] == "degraded"
    post(demo, "/api/engines/alto/wake")
    assert comes_up(demo, "alto")
    alto = machine(demo)["engines"]["alto"]
    assert (alto["restarts"], alto["restarts_asked"]) == (0, 1)
    assert ask(demo)["status"] == "ok"
