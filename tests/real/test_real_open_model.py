"""A real open model in every seat: model_configs/smollm2.yaml as a visitor runs it."""

from collections.abc import Iterator

import aiohttp
import pytest

from support.real_deployment import ROOT, Deployment, deployed

CONFIG = ROOT / "model_configs" / "smollm2.yaml"
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not CONFIG.with_suffix("").is_dir(), reason="scripts/fetch_smollm2 has not fetched the weights"),
]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(CONFIG, tmp_path_factory.mktemp("smollm2")) as deployment:
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
