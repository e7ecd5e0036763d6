"""Members and a judge that look things up, on a real engine: what they call is chance, that they can is not."""

from typing import Any

import aiohttp
import pytest

from support.real_deployment import Deployment

pytestmark = pytest.mark.vllm

QUESTION = "What is the price of Tunagox?"


async def ask(agent: Deployment, **fusion: Any) -> Any:
    fusion = {"include_intermediate_responses": True, **fusion}
    body = {"model": "cappella/library", "messages": [{"role": "user", "content": QUESTION}], "fusion": fusion}
    async with aiohttp.ClientSession() as http, http.post(f"{agent.url}/v1/chat/completions", json=body) as reply:
        answered = await reply.json()
        assert reply.status == 200, answered
        return answered


async def test_each_seat_of_a_real_panel_and_its_judge_call_tools_and_answer(agent: Deployment) -> None:
    reply = await ask(agent)
    trace = reply["fusion"]
    seats = {call["seat"] for call in trace["tool_calls"]}
    assert seats == {"clerk", "clerk#2~1", "clerk#2~2"} | seats
    assert {call["server"] for call in trace["tool_calls"]} <= {"archive", "calc", None}
    roles = [call["role"] for call in reply["usage"]["fusion_details"]]
    # The forced call of each seat, then its answer.
    assert roles.count("panel") >= 4
    assert "lookup" in roles
    assert reply["choices"][0]["message"]["content"].strip()


async def test_a_real_engine_reads_what_its_forced_call_found(agent: Deployment) -> None:
    """The prompt of the turn after the call holds the result, so it is longer than that of the call."""
    reply = await ask(agent, analysis_models=["clerk"], strategy="select", samples=1)
    prompts = [call["prompt_tokens"] for call in reply["usage"]["fusion_details"] if call["role"] == "panel"]
    assert prompts[1] > prompts[0]
    assert reply["fusion"]["tool_calls"]


def test_documents_of_a_real_gateway_are_indexed_and_listed(agent: Deployment) -> None:
    servers = agent.get("/api/machine")["tool_servers"]
    assert servers["archive"]["tools"] == ["search", "read"]
    assert servers["calc"]["tools"] == ["calculate"]
