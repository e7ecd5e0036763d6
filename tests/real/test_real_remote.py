"""A second real vLLM server on a TCP port of this machine, attached by its address: on the panel, and as the judge."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from support.plain_vllm import is_up, vllm_server
from support.real_deployment import ROOT, Deployment, deployed, wait_for

pytestmark = pytest.mark.vllm

DEMO = ROOT / "model_configs" / "demo"
KEY = "sk-test-7"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM's own server with the demo's judge, which calls it `writer` and wants a key."""
    log = tmp_path_factory.mktemp("elsewhere") / "server.log"
    with vllm_server(log, DEMO / "conductor", "writer", 2048, "--api-key", KEY) as (url, server):
        assert wait_for(lambda: server.poll() is not None or is_up(url), 400)
        assert server.poll() is None, log.read_text()[-3000:]
        yield url


@pytest.fixture(scope="module")
def gateway(elsewhere: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "writer.key").write_text(KEY)
    served = {"url": elsewhere, "model": "writer", "key_file": "writer.key", "max_model_len": 2048}
    config = {
        "models": {
            "soprano": {
                "weights": str(DEMO / "soprano"),
                "max_model_len": 1024,
                "kv_cache_bytes": "128MiB",
                "max_num_seqs": 8,
                "enforce_eager": True,
            },
            "writer": {**served, "api": "vllm"},
            "plain": served,
        },
        "ensembles": {
            "default": {"panel": ["soprano", "writer"], "judge": "writer", "analysis": "before"},
            "plain": {"panel": ["soprano", "plain"], "judge": "plain", "analysis": "off"},
        },
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    with deployed(folder / "c.yaml", folder / "logs") as deployment:
        yield deployment


def ask(gateway: Deployment, model: str, **more: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "Please tell me the room of Gonil."}], **more}
    body = {"temperature": 0, "max_completion_tokens": 60, **body}
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return json.load(error)


def test_it_sits_on_the_panel_and_judges_with_analysis_and_grammar(gateway: Deployment) -> None:
    reply = ask(gateway, "cappella/default", fusion={"include_intermediate_responses": True})
    assert reply["fusion"]["status"] == "ok", reply
    assert reply["fusion"]["judge_model"] == "writer"
    assert {each["model"] for each in reply["fusion"]["responses"]} == {"soprano", "writer"}
    roles = [each["role"] for each in reply["usage"]["fusion_details"] if each["model"] == "writer"]
    assert {"panel", "analysis", "final"} <= set(roles)
    assert all("estimated" not in each for each in reply["usage"]["fusion_details"])


def test_it_chooses_by_the_probability_of_a_token(gateway: Deployment) -> None:
    reply = ask(gateway, "cappella/default", fusion={"strategy": "select", "max_total_tokens": 4000})
    assert reply["fusion"]["status"] == "ok", reply
    assert reply["choices"][0]["message"]["content"].strip()


def test_over_plain_openai_it_writes_and_does_not_choose(gateway: Deployment) -> None:
    assert ask(gateway, "cappella/plain")["fusion"]["status"] == "ok"
    assert ask(gateway, "cappella/plain", fusion={"strategy": "select"})["error"]["param"] == "fusion.model"


def test_it_is_called_by_its_own_name_and_its_figures_are_shown(gateway: Deployment) -> None:
    assert ask(gateway, "writer")["choices"][0]["message"]["content"].strip()
    assert "vllm:num_requests_running{" in gateway.text("/metrics")
    assert 'model="writer"' in gateway.text("/metrics")
    engines = gateway.get("/api/machine")["engines"]
    assert (engines["writer"]["running"], engines["plain"]["running"]) == (0, None)
    assert engines["writer"]["planned"] is None
