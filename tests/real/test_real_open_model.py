"""A real open model in every seat: model_configs/smollm2.yaml as a visitor runs it."""

import json
from collections.abc import Iterator

import aiohttp
import pytest

from support.real_deployment import ROOT, Deployment, deployed, shipped_config

CONFIG = ROOT / "model_configs" / "smollm2.yaml"
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not CONFIG.with_suffix("").is_dir(), reason="scripts/fetch_smollm2 has not fetched the weights"),
]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The config as it is, with one more ensemble, `library`, whose members and judge look things up."""
    folder = tmp_path_factory.mktemp("smollm2")
    (folder / "archive").mkdir()
    (folder / "archive" / "geography.md").write_text("# France\n\nThe capital of France is Paris.\n")
    config = shipped_config(CONFIG.name)
    config["models"]["smollm2"]["tool_parser"] = "hermes"
    config["documents"] = {"archive": {"folder": "archive", "index": "archive.sqlite"}}
    config["tools"] = {"clock": {"builtin": "clock"}}
    own = {"tools": ["archive", "clock"], "tool_choice": "required", "max_tool_calls": 1}
    short = {"model": "smollm2", "max_completion_tokens": 32}
    panel = [{**short, **own, "temperature": 0}, {**short, **own, "temperature": 0.7, "samples": 2}]
    config["ensembles"]["library"] = {"panel": panel, "judge": {**short, **own}, "analysis": "off"}
    config["ensembles"]["library"] |= {"round_timeout_s": 600, "deadline_s": 900, "grace_s": "never"}
    (folder / CONFIG.name).write_text(json.dumps(config))
    with deployed(folder / CONFIG.name, folder / "logs") as deployment:
        yield deployment


async def test_real_open_weights_answer_a_question_of_the_world(smollm2: Deployment) -> None:
    body = {
        "model": "cappella/default",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 24,
        "fusion": {"max_completion_tokens": 24, "include_intermediate_responses": True},
    }
    url = f"{smollm2.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        reply = await response.json()
    fusion = reply["fusion"]
    assert (fusion["status"], len(fusion["responses"])) == ("ok", 3)
    assert "Paris" in fusion["responses"][0]["content"]  # the member at temperature 0
    assert reply["choices"][0]["message"]["content"].strip()
    assert {each["role"] for each in reply["usage"]["fusion_details"]} >= {"panel", "final"}


def test_real_open_weights_say_what_they_are_too_small_for(smollm2: Deployment) -> None:
    (ensemble,) = (each for each in smollm2.get("/v1/models")["data"] if each["id"] == "cappella/default")
    assert "135 million" in ensemble["notice"]
    assert "What is the capital of France?" in ensemble["examples"]


async def test_real_open_weights_look_things_up_before_they_answer(smollm2: Deployment) -> None:
    """What such a small model calls is chance; that it calls, reads the result and answers is not."""
    body = {
        "model": "cappella/library",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 32,
        "fusion": {"include_intermediate_responses": True},
    }
    url = f"{smollm2.url}/v1/chat/completions"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(900)) as http,
        http.post(url, json=body) as response,
    ):
        reply = await response.json()
        assert response.status == 200, reply
    fusion, details = reply["fusion"], reply["usage"]["fusion_details"]
    assert {each["model"] for each in fusion["responses"]} <= {call["seat"] for call in fusion["tool_calls"]}
    # The forced call of each seat and of the judge; then each answer's prompt has what it found.
    asked = {role: [call["prompt_tokens"] for call in details if call["role"] == role] for role in ("lookup", "panel")}
    assert len(asked["lookup"]) >= 3
    assert max(asked["panel"]) > min(asked["lookup"])
    assert reply["choices"][0]["message"]["content"].strip()


def test_documents_of_a_real_gateway_are_listed_with_their_tools(smollm2: Deployment) -> None:
    servers = smollm2.get("/api/machine")["tool_servers"]
    assert servers["archive"]["tools"] == ["search", "read"]
