"""Two real vLLM servers of one model, attached by their addresses or started here: one of them is killed under many requests."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.plain_vllm import is_up, vllm_server
from support.real_deployment import ROOT, Deployment, deployed, wait_for

pytestmark = pytest.mark.vllm

SOPRANO = ROOT / "model_configs" / "demo" / "soprano"
AT_ONCE, REQUESTS = 20, 200


def ask(gateway: Deployment, model: str) -> tuple[int, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Please tell me the room of Gonil."}],
    }
    body |= {"temperature": 1, "max_completion_tokens": 200}
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_server_killed_under_many_requests_costs_none_of_them(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(vllm_server(tmp_path / f"{name}.log", SOPRANO, "voice", 1024))
            for name in ("first", "second")
        ]
        for url, server in servers:
            assert wait_for(lambda url=url, server=server: server.poll() is not None or is_up(url), 400)  # type: ignore[misc]
            assert server.poll() is None
        voice = {"url": [url for url, _ in servers], "api": "vllm", "max_model_len": 1024, "max_num_seqs": 8}
        default = {"panel": ["voice"] * 3, "judge": "voice", "analysis": "off", "quorum": 1}
        config = {"models": {"voice": voice}, "ensembles": {"default": default}}
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
        gateway = stack.enter_context(deployed(tmp_path / "c.yaml", tmp_path / "logs"))
        assert wait_for(lambda: [each["state"] for each in replicas(gateway)] == ["ready", "ready"], 60)
        assert lost(gateway, lambda: os.killpg(servers[0][1].pid, signal.SIGKILL)) == []
        assert wait_for(lambda: [each["state"] for each in replicas(gateway)] == ["unhealthy", "ready"], 60)
        assert replicas(gateway)[0]["failed"] >= 1
        assert gateway.get("/ready")["ready"] is True
        page = gateway.text("/metrics")
        assert 'cappella_replica_up{model="voice",replica="voice-1"} 0.0' in page
        assert 'replica="voice-2"' in next(
            line for line in page.splitlines() if line.startswith("vllm:num_requests_running")
        )


def test_an_engine_killed_under_many_requests_costs_none_of_them_and_comes_back(tmp_path: Path) -> None:
    voice = {"weights": str(SOPRANO), "replicas": 2, "max_model_len": 1024, "kv_cache_bytes": "128MiB"}
    voice |= {"max_num_seqs": 8, "enforce_eager": True}
    default = {"panel": ["voice"] * 3, "judge": "voice", "analysis": "off", "quorum": 1}
    config = {"models": {"voice": voice}, "ensembles": {"default": default}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    with deployed(tmp_path / "c.yaml", tmp_path / "logs") as gateway:
        assert wait_for(lambda: [each["state"] for each in replicas(gateway)] == ["ready", "ready"], 200)
        assert (tmp_path / "logs" / "voice-2.log").exists()
        assert lost(gateway, lambda: os.kill(gateway.engine_core("voice"), signal.SIGKILL)) == []
        assert wait_for(lambda: [each["state"] for each in replicas(gateway)] == ["ready", "ready"], 200)
        assert gateway.get("/api/machine")["engines"]["voice"]["restarts"] == 1


def lost(gateway: Deployment, kill: Callable[[], None]) -> list[Any]:
    """The replies to many requests that have another status than 200, where something is killed meanwhile.

    But for runs in flight whose members had all begun to answer on what was killed: such calls cannot be repeated.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(ask, gateway, ("voice", "cappella/default")[number % 2]) for number in range(REQUESTS)]
        assert wait_for(lambda: sum(each.done() for each in asked) >= 10, 300)
        kill()
        in_flight = [each for each in asked if not each.done()][:AT_ONCE]
        assert len(in_flight) == AT_ONCE
        replies = [each.result() for each in asked]
        had_begun = [each.result()[1] for each in in_flight if is_broken_run(each.result()[1])]
    return [reply for status, reply in replies if status != 200 and reply not in had_begun]


def is_broken_run(reply: Any) -> bool:
    return bool(reply.get("error", {}).get("code") == "insufficient_quorum")


def replicas(gateway: Deployment) -> list[dict[str, Any]]:
    return list(gateway.get("/api/machine")["engines"]["voice"]["replicas"])
