"""A panel of LoRA adapters on real vLLM: one engine, three voices that know different things."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from support.real_deployment import ROOT, Deployment

sys.path[:0] = [str(ROOT / "scripts")]
from demo.score import is_right
from demo.world import Handbook, Question, held_out_questions

pytestmark = pytest.mark.vllm


async def ask(deployment: Deployment, model: str, question: str, **fields: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, **fields}
    data = json.dumps(body).encode()
    request = Request(f"{deployment.url}/v1/chat/completions", data, {"Content-Type": "application/json"})

    def send() -> Any:
        with urlopen(request, timeout=120) as reply:
            return json.load(reply)

    return await asyncio.to_thread(send)


def known_to(member: str, but_not_to: str, count: int = 24) -> list[Question]:
    """Held-out questions with one part, which one member of the demo read and the other did not."""
    handbook = Handbook()
    strange = {part.sentence for part in handbook.known_by(but_not_to)}
    own = {part.sentence for part in handbook.known_by(member)} - strange
    single = [question for question in held_out_questions(3000) if len(question.parts) == 1]
    return [question for question in single if question.parts[0].sentence in own][:count]


async def right(deployment: Deployment, model: str, questions: Sequence[Question]) -> int:
    replies = await asyncio.gather(*(ask(deployment, model, question.text, max_tokens=100) for question in questions))
    said = [reply["choices"][0]["message"]["content"] for reply in replies]
    return sum(is_right(text, question) for text, question in zip(said, questions, strict=True))


@pytest.mark.parametrize(("adapter", "member"), [("second", "alto"), ("third", "tenor")])
async def test_an_adapter_knows_what_its_base_does_not(adapters: Deployment, adapter: str, member: str) -> None:
    questions = known_to(member, but_not_to="soprano")
    assert len(questions) >= 20
    assert await right(adapters, adapter, questions) >= 0.6 * len(questions)
    assert await right(adapters, "soprano", questions) <= 0.2 * len(questions)


async def test_a_panel_of_adapters_is_one_engine(adapters: Deployment) -> None:
    question = "Please tell me the room of Gonil, the price of Tunagox and the lead of Tatim."
    run = await ask(adapters, "cappella/default", question, fusion={"include_intermediate_responses": True})
    assert run["fusion"]["status"] == "ok"
    assert [each["model"] for each in run["fusion"]["responses"]] == ["soprano", "second", "third"]
    assert len({each["content"] for each in run["fusion"]["responses"]}) == 3
    cores = [pid for pid in adapters.processes() if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(cores) == 2
    engines = adapters.get("/ready")["engines"]
    assert engines["second"]["model"] == "soprano"
    models = [each["id"] for each in adapters.get("/v1/models")["data"]]
    assert set(models) == {"cappella/default", "soprano", "second", "third", "conductor"}
