"""The main job on real engines: a stock client, the whole path, faults."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from support.real_deployment import Deployment, command_of, parent_of, stopped, wait_for

pytestmark = pytest.mark.vllm

ENSEMBLE = "cappella/default"
QUESTIONS = ["Who leads Atlas?", "What is 12 plus 30?", "Which room is Atlas in, and who leads it?"]


def client(demo: Deployment) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=120)


def ask(model: str, question: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], **more}


async def post(demo: Deployment, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one chat completion."""
    async with aiohttp.ClientSession() as http, http.post(f"{demo.url}/v1/chat/completions", json=body) as reply:
        content = await reply.read()
        return reply.status, json.loads(content) if reply.content_type == "application/json" else {}


async def test_the_judge_writes_from_the_panels_answers(demo: Deployment) -> None:
    _, reply = await post(demo, ask(ENSEMBLE, QUESTIONS[0], fusion={"include_intermediate_responses": True}))
    assert reply["fusion"]["status"] == "ok"
    assert reply["fusion"]["judge_model"] == "conductor"
    assert [each["model"] for each in reply["fusion"]["responses"]] == ["soprano", "alto", "tenor"]
    assert reply["choices"][0]["message"]["content"].strip()
    assert set(reply["fusion"]["analysis"]) == {
        "consensus",
        "contradictions",
        "partial_coverage",
        "unique_insights",
        "blind_spots",
    }
    assert [each["role"] for each in reply["usage"]["fusion_details"]] == ["panel"] * 3 + ["analysis", "final"]


async def test_a_stock_client_streams_the_answer(demo: Deployment) -> None:
    async with client(demo) as stock:
        stream = await stock.chat.completions.create(
            model=ENSEMBLE, messages=[{"role": "user", "content": QUESTIONS[0]}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(texts) > 1
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("mode", ["before", "alongside", "off"])
async def test_every_analysis_mode_ends_with_an_answer(demo: Deployment, mode: str) -> None:
    _, reply = await post(demo, ask(ENSEMBLE, QUESTIONS[2], fusion={"analysis": mode}))
    assert reply["choices"][0]["message"]["content"].strip()
    assert ("analysis" in reply["fusion"]) == (mode != "off")


async def test_a_members_own_reply_is_vllms_own(demo: Deployment) -> None:
    async with client(demo) as stock:
        reply = await stock.chat.completions.create(
            model="alto", messages=[{"role": "user", "content": QUESTIONS[0]}], temperature=0, logprobs=True
        )
    assert reply.model == "alto"
    assert reply.system_fingerprint
    assert reply.system_fingerprint.startswith("vllm-")
    assert reply.choices[0].logprobs is not None


async def test_the_two_judge_calls_share_their_prefix(demo: Deployment) -> None:
    _, reply = await post(demo, ask(ENSEMBLE, "word " * 120, fusion={"analysis": "before"}))
    final = reply["usage"]["fusion_details"][-1]
    assert final["role"] == "final"
    assert final["cached_tokens"] >= 128


async def test_a_prompt_too_long_for_the_members_is_400_that_names_them(demo: Deployment) -> None:
    status, reply = await post(demo, ask(ENSEMBLE, "word " * 1500))
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    # Two of three put the quorum out of reach; the third may not have been heard.
    assert sum(name in reply["error"]["message"] for name in ("soprano", "alto", "tenor")) >= 2


async def test_unknown_models_and_fields_are_refused(demo: Deployment) -> None:
    async with client(demo) as stock:
        with pytest.raises(openai.NotFoundError):
            await stock.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "?"}])
        with pytest.raises(openai.BadRequestError, match="logit_bias"):
            await stock.chat.completions.create(
                model=ENSEMBLE, messages=[{"role": "user", "content": "?"}], extra_body={"logit_bias": {"5": 9}}
            )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [ENSEMBLE, "soprano"])
async def test_a_client_that_goes_away_frees_every_engine(demo: Deployment, model: str, stream: bool) -> None:
    async def again_and_again(limit: int) -> None:
        long: dict[str, Any] = {"fusion": {"max_completion_tokens": limit, "temperature": 2}}
        if model != ENSEMBLE:
            long = {"max_tokens": limit, "ignore_eos": True}
        # A busy engine tells its figures late: by then one answer alone could be over.
        while True:
            await post(demo, ask(model, QUESTIONS[2], stream=stream, **long))

    # They decode in step: with one limit for all, the step that is under way could be the last of all of them.
    calls = [asyncio.create_task(again_and_again(limit)) for limit in range(600, 920, 40)]
    assert await asyncio.to_thread(wait_for, lambda: demo.running() > 0, 60)
    # No call ends by itself while the clients leave.
    with stopped([demo.engine_core(name) for name in ("soprano", "alto", "tenor")]):
        ended = await asyncio.to_thread(demo.settled_limits_of_ended_calls, "soprano")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        # A busy gateway learns of it late, and answers at this temperature may be short.
        assert await asyncio.to_thread(wait_for, lambda: demo.runs_in_flight() == 0, 60)
    assert await asyncio.to_thread(wait_for, lambda: demo.running() == 0, 60)
    # A step that was under way may have been the last of one of them, and another's while the others were aborted.
    assert demo.limits_of_ended_calls("soprano") < ended + 3 * 600


async def test_metrics_hold_our_figures_and_each_engines_own(demo: Deployment) -> None:
    text = await asyncio.to_thread(demo.text, "/metrics")
    assert 'cappella_engine_up{model="conductor"} 1.0' in text
    for model in ("soprano", "alto", "tenor", "conductor"):
        assert f'model="{model}"' in text.partition("vllm:num_requests_running{")[2]
    assert text.count("# TYPE vllm:num_requests_running ") == 1


async def test_the_socket_folder_is_private(demo: Deployment) -> None:
    sockets = {Path(socket) for pid in demo.processes() for socket in re.findall(r"--uds (\S+)", command_of(pid))}
    assert len(sockets) == 4
    for socket in sockets:
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert socket.parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_model_computes_in_its_engine_core_and_lets_the_gateway_go_first(demo: Deployment) -> None:
    core = demo.engine_core("soprano")
    assert [pid for pid in demo.processes() if parent_of(pid) == core] == []
    assert os.getpriority(os.PRIO_PROCESS, core) > os.getpriority(os.PRIO_PROCESS, demo.process.pid)


async def test_long_prompts_with_seeds_are_read_in_parts_and_answered(demo: Deployment) -> None:
    """More than one step can read: vLLM's engine core ended on a CPU."""
    seeds = [*range(8), *range(8)]
    bodies = [
        ask("conductor", f"{seed} " + "Who leads Atlas? " * 150, seed=seed, temperature=1, max_tokens=4)
        for seed in seeds
    ]
    replies = await asyncio.gather(*(post(demo, body) for body in bodies))
    assert [status for status, _ in replies] == [200] * 16
    texts = [reply["choices"][0]["message"]["content"] for _, reply in replies]
    assert texts[:8] == texts[8:]
    assert len(set(texts)) > 1
