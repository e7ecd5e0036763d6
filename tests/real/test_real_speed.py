"""What makes a run cheap, on real engines: caches that are shared, answers that are copied, stragglers that are cut."""

import asyncio
from typing import Any

import aiohttp
import pytest

from cappella.ensemble import prompts
from demo.world import held_out_questions
from support.real_deployment import Deployment, stopped, wait_for

pytestmark = pytest.mark.vllm

ENSEMBLE = "cappella/default"


def long_text(seed: str, words: int = 150) -> str:
    """Words that no other test has put into a cache."""
    return " ".join(f"{seed} {number}" for number in range(words))


async def ask(demo: Deployment, messages: list[dict[str, str]], model: str = ENSEMBLE, **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": messages, "temperature": 0, **more}
    async with aiohttp.ClientSession() as http, http.post(f"{demo.url}/v1/chat/completions", json=body) as reply:
        value: dict[str, Any] = await reply.json()
        assert reply.status == 200, value
        return value


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def text_of(reply: dict[str, Any]) -> str:
    return str(reply["choices"][0]["message"]["content"])


def cost(reply: dict[str, Any], role: str) -> dict[str, Any]:
    return next(each for each in reply["usage"]["fusion_details"] if each["role"] == role)


async def test_a_judge_that_sat_on_the_panel_finds_the_conversation_in_its_cache(demo: Deployment) -> None:
    panel = {"analysis_models": ["conductor", "alto"], "max_completion_tokens": 8}
    fusion = {**panel, "analysis": "off", "early_prefill": False}
    reply = await ask(demo, [user(long_text("panel"))], fusion=fusion, max_completion_tokens=8)
    prompt_tokens = cost(reply, "panel")["prompt_tokens"]
    # All of the conversation but its last, unfinished block of 128.
    assert cost(reply, "final")["cached_tokens"] >= prompt_tokens - 128 > 128


async def test_the_next_turn_finds_the_last_one_in_the_judges_cache(demo: Deployment) -> None:
    fusion = {"analysis": "off", "early_prefill": False}
    turn = [user(long_text("turn"))]
    first = await ask(demo, turn, fusion=fusion, max_completion_tokens=8)
    turns = [*turn, {"role": "assistant", "content": text_of(first)}, user("And now?")]
    second = await ask(demo, turns, fusion=fusion, max_completion_tokens=8)
    assert cost(first, "final")["cached_tokens"] < 128 <= cost(second, "final")["cached_tokens"]


async def test_a_straggler_is_cut_after_the_grace_and_its_memory_is_free(demo: Deployment) -> None:
    """The core of one member makes no step until the others have answered, so that it is the one that is late."""
    overrides = [{"model": name, "max_completion_tokens": 4} for name in ("alto", "tenor")]
    overrides += [{"model": "soprano", "max_completion_tokens": 900}]
    fusion = {"analysis": "off", "min_successful_responses": 2, "grace_seconds": 0.0, "analysis_overrides": overrides}
    ended = demo.limits_of_ended_calls("soprano")
    with stopped([demo.engine_core("soprano")]):
        reply = await ask(demo, [user("Say something")], fusion=fusion, max_completion_tokens=8)
    assert reply["fusion"]["status"] == "ok"
    assert [(each["model"], each["reason"]) for each in reply["fusion"]["failed_models"]] == [("soprano", "straggler")]

    def soprano_is_free() -> bool:
        return demo.running() == 0 and demo.kv_usage("soprano") == 0

    assert await asyncio.to_thread(wait_for, soprano_is_free, 60)
    # The call was aborted, and did not go on to its end unheard. (A probe for a token may have ended meanwhile.)
    assert demo.limits_of_ended_calls("soprano") < ended + 900


@pytest.mark.parametrize("temperature", [0.5, 1.0])
async def test_copying_ahead_keeps_to_the_temperature(demo: Deployment, temperature: float) -> None:
    """At these the judge still copies what it is shown, as it does without guesses."""
    alone = [question for question in held_out_questions(60) if len(question.parts) == 1][:12]
    for seed, question in enumerate(alone):
        messages = prompts.final_messages([user(question.text)], [question.parts[0].sentence] * 2, "0123abcd")
        reply = await ask(demo, list(map(dict, messages)), "conductor", temperature=temperature, seed=seed)
        assert text_of(reply) == question.parts[0].sentence


async def test_copying_ahead_changes_no_word_and_takes_fewer_steps(demo: Deployment, adapters: Deployment) -> None:
    same = 0
    questions = held_out_questions(24)
    for question in questions:
        answers = [part.sentence for part in question.parts]
        messages = prompts.final_messages([user(question.text)], answers, "0123abcd")
        copied = await ask(demo, list(map(dict, messages)), "conductor")
        alone = await ask(adapters, list(map(dict, messages)), "conductor")
        same += text_of(copied) == text_of(alone)
    assert same == len(questions)
    reply = await ask(demo, [user(questions[0].text)], fusion={"analysis": "off"})
    assert cost(reply, "final")["tokens_per_step"] > 1
