"""Every strategy, and every way a client may ask, on real engines and trained models."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

import cappella
from cappella.config.options import Options
from cappella.config.overrides import Overrides
from cappella.ensemble.events import FinalDelta
from cappella.ensemble.run import Run
from demo import world
from support.node_client import HAS_NODE, run_node
from support.real_deployment import ROOT, Deployment, deployed

pytestmark = pytest.mark.vllm

ENSEMBLE = "cappella/default"
QUESTION = "Please tell me the room of Gonil and the price of Tunagox."
# 334 makes a thousand runs over the three strategies.
RANDOM_SCHEMAS = int(os.environ.get("RANDOM_SCHEMAS", "8"))
CLIENTS = ROOT / ".venv" / "clients"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The demo's clerk in several seats: it thinks, and it calls tools."""
    with deployed(ROOT / "model_configs" / "demo-agent.yaml", tmp_path_factory.mktemp("agent")) as deployment:
        yield deployment


def client(demo: Deployment) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="none", max_retries=0, timeout=120)


async def ask(demo: Deployment, question: str = QUESTION, **more: Any) -> Any:
    """The JSON of one chat completion."""
    body = {"model": ENSEMBLE, "messages": [{"role": "user", "content": question}], **more}
    async with aiohttp.ClientSession() as http, http.post(f"{demo.url}/v1/chat/completions", json=body) as reply:
        value = await reply.json()
        assert reply.status == 200, value
        return value


def content(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def by_name(reply: Any) -> dict[str, str]:
    return {each["model"]: each["content"] for each in reply["fusion"]["responses"]}


@pytest.mark.parametrize("debias", [False, True])
async def test_select_returns_one_answer_verbatim_and_a_probability_for_each(demo: Deployment, debias: bool) -> None:
    options = {"strategy": "select", "debias": debias, "include_intermediate_responses": True}
    reply = await ask(demo, fusion=options)
    trace = reply["fusion"]
    assert trace["status"] == "ok"
    assert content(reply) == by_name(reply)[trace["chosen"]]
    assert set(trace["probabilities"]) == {"soprano", "alto", "tenor"}
    assert sum(trace["probabilities"].values()) == pytest.approx(1)
    assert max(trace["probabilities"].values()) == trace["probabilities"][trace["chosen"]]
    choices = [call for call in reply["usage"]["fusion_details"] if call["role"] == "choice"]
    # Each answer in each place once, and both orders of two that are close.
    assert len(choices) in ((3, 5) if debias else (1,))
    assert all(call["completion_tokens"] <= 2 for call in choices)


async def test_vote_needs_no_judge_where_most_agree(demo: Deployment) -> None:
    options = {"strategy": "vote", "analysis_models": ["soprano"] * 3, "include_intermediate_responses": True}
    reply = await ask(demo, "What is 12 plus 30?", fusion=options)
    assert content(reply) == by_name(reply)["soprano"]
    assert reply["fusion"]["votes"] == {"soprano": ["soprano", "soprano#2", "soprano#3"]}
    assert [call["role"] for call in reply["usage"]["fusion_details"]] == ["panel"] * 3


async def test_samples_of_one_seat_are_one_call(demo: Deployment) -> None:
    options = {"samples": 3, "temperature": 1, "analysis": "off", "include_intermediate_responses": True}
    reply = await ask(demo, fusion={**options, "analysis_models": ["soprano"]}, seed=5)
    assert list(by_name(reply)) == ["soprano~1", "soprano~2", "soprano~3"]
    assert [call["role"] for call in reply["usage"]["fusion_details"]] == ["panel", "final"]
    again = await ask(demo, fusion={**options, "analysis_models": ["soprano"]}, seed=5)
    assert by_name(again) == by_name(reply)


async def test_a_second_layer_reads_the_first(demo: Deployment) -> None:
    # Of noise without end, which the judge may give to a bare question, nobody could read on.
    members = {"temperature": 0, "max_completion_tokens": 60}
    options = {"layers": 2, "analysis": "off", "include_intermediate_responses": True, **members}
    panel = ["soprano", "alto", "tenor", "conductor"]
    reply = await ask(demo, fusion={**options, "analysis_models": panel, "min_successful_responses": 1})
    assert [len(answers) >= 1 for answers in reply["fusion"]["rounds"]] == [True, True]
    second = {each["model"]: each["content"] for each in reply["fusion"]["rounds"][1]}
    # Of these only the judge has learned to read others' answers.
    assert "Gonil" in second["conductor"]


async def test_a_review_ranks_every_answer(demo: Deployment) -> None:
    reply = await ask(demo, fusion={"review": True, "analysis": "off"})
    assert sorted(reply["fusion"]["ranking"]) == ["alto", "soprano", "tenor"]
    assert [call["role"] for call in reply["usage"]["fusion_details"]].count("review") == 3


@pytest.mark.parametrize("mode", ["equal", "judge"])
async def test_a_unanimous_panel_ends_the_run_early(demo: Deployment, mode: str) -> None:
    options = {"early_exit": mode, "analysis_models": ["soprano", "soprano"]}
    reply = await ask(demo, "What is 12 plus 30?", fusion=options)
    assert content(reply).startswith("12 plus 30 is")
    assert reply["fusion"]["early_exit"] == "equal"
    assert {call["role"] for call in reply["usage"]["fusion_details"]} == {"panel"}


async def test_the_judge_says_in_one_word_whether_answers_agree(demo: Deployment) -> None:
    reply = await ask(demo, fusion={"early_exit": "judge", "analysis": "off"})
    asked = [call for call in reply["usage"]["fusion_details"] if call["role"] == "agreement"]
    assert len(asked) == 1
    assert asked[0]["completion_tokens"] <= 3


async def test_a_gate_passes_the_panel_by_and_says_so(demo: Deployment) -> None:
    reply = await ask(demo, "Hello there", fusion={"gate": "rules"})
    assert (reply["fusion"]["status"], reply["fusion"]["gate"]["model"]) == ("bypassed", "soprano")
    assert "2 words" in reply["fusion"]["gate"]["reason"]
    reply = await ask(demo, fusion={"gate": "judge"})
    assert reply["usage"]["fusion_details"][0]["role"] == "gate"


async def test_no_run_costs_more_than_its_budget(demo: Deployment) -> None:
    for budget in (900, 1500, 3000):
        reply = await ask(demo, fusion={"max_total_tokens": budget, "analysis": "before"})
        assert reply["fusion"]["usage"]["total_tokens"] <= budget


@pytest.mark.parametrize("preset", ["quality", "balanced", "quick"])
async def test_every_preset_of_the_demo_answers(demo: Deployment, preset: str) -> None:
    reply = await ask(demo, fusion={"preset": preset})
    assert reply["fusion"]["preset"] == preset
    assert content(reply).strip()


async def test_logprobs_come_with_every_strategy(demo: Deployment) -> None:
    for strategy in ("synthesize", "select", "vote"):
        reply = await ask(demo, fusion={"strategy": strategy}, logprobs=True, top_logprobs=2)
        tokens = reply["choices"][0]["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens).startswith(content(reply)[:20])
        assert all(len(token["top_logprobs"]) >= 1 for token in tokens)


def random_schema(rng: Random, depth: int = 2) -> dict[str, Any]:
    """A schema whose every value is short, so that an answer always fits."""
    kinds = ["string", "integer", "boolean", "enum", "null"] + (["object", "array"] if depth else [])
    match rng.choice(kinds):
        case "string":
            return {"type": "string", "maxLength": rng.randint(1, 12)}
        case "integer":
            return {"type": "integer", "minimum": 0, "maximum": rng.randint(1, 999)}
        case "enum":
            return {"enum": rng.sample(["red", "green", "blue", 1, 2, True, None], rng.randint(1, 4))}
        case "array":
            items = random_schema(rng, depth - 1)
            return {"type": "array", "items": items, "minItems": rng.randint(0, 1), "maxItems": rng.randint(1, 3)}
        case "object":
            return random_object(rng, depth - 1)
        case kind:
            return {"type": kind}


def random_object(rng: Random, depth: int = 2) -> dict[str, Any]:
    names = rng.sample(["name", "price", "room", "tags", "done", "é"], rng.randint(1, 4))
    properties = {name: random_schema(rng, depth) for name in names}
    required = [name for name in names if rng.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@pytest.mark.parametrize("strategy", ["synthesize", "select", "vote"])
async def test_answers_have_the_form_that_was_asked_for(demo: Deployment, strategy: str) -> None:
    from asyncio import Semaphore, gather

    from cappella.ensemble.structured import formats
    from cappella.types import OutputFormat

    slots = Semaphore(12)

    async def one(seed: int) -> str | None:
        schema = random_object(Random(seed))
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        options = {"strategy": strategy, "analysis": "off"}
        async with slots:
            reply = await ask(demo, response_format=form, fusion=options, max_completion_tokens=600)
        return await formats.violation(OutputFormat("response_format", form), content(reply))

    problems = await gather(*(one(seed) for seed in range(RANDOM_SCHEMAS)))
    assert [problem for problem in problems if problem] == []


async def test_vllms_own_forms_hold_too(demo: Deployment) -> None:
    for strategy in ("synthesize", "select", "vote"):
        options = {"strategy": strategy, "analysis": "off"}
        reply = await ask(demo, structured_outputs={"choice": ["red", "blue"]}, fusion=options)
        assert content(reply) in ("red", "blue")
        reply = await ask(demo, structured_outputs={"regex": "[a-c]{3}"}, fusion=options)
        assert len(content(reply)) == 3


async def test_the_responses_api_streams_a_run(demo: Deployment) -> None:
    async with client(demo) as stock:
        asked = {"fusion": {"include_events": True}}
        stream = await stock.responses.create(model=ENSEMBLE, input=QUESTION, stream=True, extra_body=asked)
        events = [event async for event in stream]
        alone = await stock.responses.create(model="soprano", input="What is 12 plus 30?", max_output_tokens=40)
    kinds = {event.type for event in events}
    assert {"response.fusion_call.panel.delta", "response.fusion_call.analysis.completed"} <= kinds
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text.strip()
    assert alone.model == "soprano"


async def test_the_messages_api_streams_a_run(demo: Deployment) -> None:
    from anthropic import AsyncAnthropic

    async with AsyncAnthropic(base_url=demo.url, api_key="none", max_retries=0) as stock:
        turn: Any = {"role": "user", "content": QUESTION}
        async with stock.messages.stream(model=ENSEMBLE, max_tokens=200, messages=[turn]) as stream:
            final = await stream.get_final_message()
        alone = await stock.messages.create(model="soprano", max_tokens=40, messages=[turn])
    assert final.content[0].type == "text"
    assert final.stop_reason == "end_turn"
    assert alone.model == "soprano"


async def test_completions_of_a_single_model(demo: Deployment) -> None:
    async with client(demo) as stock:
        reply = await stock.completions.create(model="soprano", prompt="12 plus 30 is", max_tokens=4)
    assert reply.choices[0].text


TOOL: Any = {
    "name": "look_up",
    "description": "One value of the handbook.",
    "parameters": {
        "type": "object",
        "properties": {"attribute": {"type": "string"}, "name": {"type": "string"}},
        "required": ["attribute", "name"],
    },
}
FACTS = {("price", "Tunagox"): "61", ("room", "Gonil"): "512", ("lead", "Tatim"): "Sorel"}


def look_up(arguments: Any) -> str:
    given = json.loads(arguments) if isinstance(arguments, str) else arguments
    return FACTS[given["attribute"], given["name"]]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_runs_over_several_turns(agent: Deployment, stream: bool) -> None:
    messages: list[Any] = []
    said = []
    async with client(agent) as stock:
        for question in ("What is the price of Tunagox?", "Tell me Gonil's office and the lead of Tatim."):
            messages.append({"role": "user", "content": question})
            while True:
                message = await _turn(stock, messages, stream)
                # The stream helper adds fields of its own to what the server sent.
                messages.append(message if not stream else _bare(message))
                if not message.tool_calls:
                    break
                for call in message.tool_calls:
                    result = look_up(call.function.arguments)
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
            said.append(message.content)
    assert said == ["Tunagox costs 61 dollars.", "Gonil sits in room 512. Tatim is led by Sorel."]
    assert [message["role"] for message in messages if isinstance(message, dict)].count("tool") == 3


def _bare(message: Any) -> dict[str, Any]:
    calls = [
        call.model_dump(exclude={"index": True, "function": {"parsed_arguments"}}) for call in message.tool_calls or ()
    ]
    return {"role": "assistant", "content": message.content, **({"tool_calls": calls} if calls else {})}


async def _turn(stock: AsyncOpenAI, messages: list[Any], stream: bool) -> Any:
    wanted: Any = {"model": ENSEMBLE, "messages": messages, "tools": [{"type": "function", "function": TOOL}]}
    if not stream:
        return (await stock.chat.completions.create(**wanted)).choices[0].message
    async with stock.chat.completions.stream(**wanted) as streaming:
        return (await streaming.get_final_completion()).choices[0].message


BOUNDED: Any = {
    "type": "object",
    "properties": {"attribute": {"enum": ["price", "room"]}, "name": {"enum": ["Gonil", "Tunagox"]}},
    "required": ["attribute", "name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", [ENSEMBLE, "clerk"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("strict", "choice"),
    [
        (False, {"type": "function", "function": {"name": "look_up"}}),
        (True, "auto"),
    ],
    ids=["named", "strict"],
)
async def test_a_real_engine_with_a_tool_parser_is_forced_to_call(
    agent: Deployment, model: str, stream: bool, strict: bool, choice: Any
) -> None:
    wanted: Any = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the price of Tunagox?"}],
        "tools": [{"type": "function", "function": {**TOOL, "parameters": BOUNDED, "strict": strict}}],
        "tool_choice": choice,
        "max_tokens": 70,
        "temperature": 0,
    }
    async with client(agent) as stock:
        if not stream:
            calls = (await stock.chat.completions.create(**wanted)).choices[0].message.tool_calls or []
            named = [call.function for call in calls if call.type == "function"]
        else:
            chunks = [chunk async for chunk in await stock.chat.completions.create(**wanted, stream=True)]
            named = [
                call.function for chunk in chunks for each in chunk.choices for call in each.delta.tool_calls or []
            ]
    assert named
    assert {call.name for call in named if call and call.name} <= {"look_up"}


@pytest.mark.parametrize(("parallel", "most"), [(False, 1), (None, 8)])
async def test_real_calls_that_are_required_come_to_an_end(agent: Deployment, parallel: Any, most: int) -> None:
    wanted: Any = {
        "model": "clerk",
        "messages": [{"role": "user", "content": "What is the price of Tunagox?"}],
        "tools": [{"type": "function", "function": {**TOOL, "parameters": BOUNDED}}],
        "tool_choice": "required",
        "max_tokens": 900,
        "temperature": 0,
        **({} if parallel is None else {"parallel_tool_calls": parallel}),
    }
    async with client(agent) as stock:
        patient = stock.with_options(timeout=600)
        choice = (await patient.chat.completions.create(**wanted)).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert 1 <= len(choice.message.tool_calls or []) <= most


BLOCK_TOKENS = 128
"""Of vLLM's prefix cache on a CPU."""


@pytest.mark.parametrize("mode", ["all", "judge"])
async def test_real_engines_find_an_agents_earlier_turns_in_their_cache(agent: Deployment, mode: str) -> None:
    result = "Tunagox costs 61 dollars and Gonil sits in room 512. " * 12
    messages: list[Any] = [{"role": "system", "content": f"Session {mode}. Use the tool."}]
    messages.append({"role": "user", "content": "What is the price of Tunagox?"})
    # What the small model says to such results is not the matter: at times it says nothing.
    fusion = {"tools_panel": mode, "max_completion_tokens": 48, "min_successful_responses": 1}
    known, calls = 0, 0
    for number in range(3):
        tools = [{"type": "function", "function": TOOL}]
        body = {"model": ENSEMBLE, "messages": messages, "tools": tools, "max_tokens": 48, "fusion": fusion}
        async with aiohttp.ClientSession() as http, http.post(f"{agent.url}/v1/chat/completions", json=body) as reply:
            answered = await reply.json()
        assert reply.status == 200, answered
        made = answered["usage"]["fusion_details"]
        assert {call["role"] for call in made} >= ({"single"} if number and mode == "judge" else {"panel", "final"})
        # An early prefill that was broken off counts nothing.
        for call in (each for each in made if each["prompt_tokens"]):
            # The last block is not whole, and the one before it may hold the end of the earlier prompt.
            assert call["cached_tokens"] >= known // BLOCK_TOKENS * BLOCK_TOKENS - BLOCK_TOKENS, call
        known, calls = answered["usage"]["prompt_tokens"], calls + len(made)
        call = {"id": f"c{number}", "type": "function", "function": {"name": "look_up", "arguments": CALLED}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"{number}. {result}"},
        ]
    assert known > 4 * BLOCK_TOKENS
    assert calls >= (5 if mode == "judge" else 9)


CALLED = '{"attribute": "price", "name": "Tunagox"}'


async def test_reasoning_is_split_off_and_kept_in_the_trace(agent: Deployment) -> None:
    tools = [{"type": "function", "function": TOOL}]
    options = {"include_intermediate_responses": True}
    reply = await ask(agent, "What is the price of Tunagox?", tools=tools, reasoning_effort="low", fusion=options)
    assert "price of Tunagox" in reply["choices"][0]["message"]["reasoning"]
    for answer in reply["fusion"]["responses"]:
        assert "look up" in answer["reasoning"]
        assert "think" not in answer["content"]
        assert answer["tool_calls"][0]["name"] == "look_up"


async def test_anthropics_client_runs_the_same_loop(agent: Deployment) -> None:
    from anthropic import AsyncAnthropic

    tool: Any = {"name": "look_up", "description": "d", "input_schema": TOOL["parameters"]}
    turns: list[Any] = [{"role": "user", "content": "What is the price of Tunagox?"}]
    async with AsyncAnthropic(base_url=agent.url, api_key="none", max_retries=0) as stock:
        first = await stock.messages.create(model=ENSEMBLE, max_tokens=300, messages=turns, tools=[tool])
        use = first.content[-1]
        assert use.type == "tool_use"
        turns.append(
            {"role": "assistant", "content": [{"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}]}
        )
        result = {"type": "tool_result", "tool_use_id": use.id, "content": look_up(use.input)}
        turns.append({"role": "user", "content": [result]})
        second = await stock.messages.create(model=ENSEMBLE, max_tokens=300, messages=turns, tools=[tool])
    assert (first.stop_reason, second.stop_reason) == ("tool_use", "end_turn")
    assert second.content[-1].type == "text"
    assert second.content[-1].text == "Tunagox costs 61 dollars."


async def test_the_responses_api_runs_the_same_loop(agent: Deployment) -> None:
    tools: Any = [{"type": "function", "strict": False, **TOOL}]
    async with client(agent) as stock:
        first = await stock.responses.create(model=ENSEMBLE, input="What is the price of Tunagox?", tools=tools)
        call = first.output[-1]
        assert call.type == "function_call"
        turns: list[Any] = [{"role": "user", "content": "What is the price of Tunagox?"}]
        turns.append({"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments})
        turns.append({"type": "function_call_output", "call_id": call.call_id, "output": look_up(call.arguments)})
        second = await stock.responses.create(model=ENSEMBLE, input=turns, tools=tools)
    assert second.output_text == "Tunagox costs 61 dollars."


@pytest.mark.skipif(not HAS_NODE, reason="no Node.js here")
def test_the_node_client_runs_the_loop_and_reads_every_event(agent: Deployment) -> None:
    seen = run_node("agent.mjs", agent.url)
    assert json.loads(seen["arguments"]) == {"attribute": "price", "name": "Tunagox"}
    assert seen["text"] == "Tunagox costs 61 dollars."
    assert "response.fusion_call.panel.completed" in seen["events"]
    assert seen["events"][-1] == "response.completed"


@pytest.mark.parametrize("script", ["langchain_agent.py", "litellm_chat.py"])
def test_other_libraries_take_it_for_any_other_model(agent: Deployment, script: str) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "clients" / script), agent.url]
    environment = {**os.environ, "PYTHONPATH": str(CLIENTS), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Tunagox costs 61 dollars."


async def test_a_runtime_in_process_asks_and_streams(tmp_path: Path) -> None:
    weights = ROOT / "model_configs" / "demo"
    model = {"max_model_len": 1024, "kv_cache_bytes": "64MiB", "enforce_eager": True}
    models = {name: {"weights": str(weights / name), **model} for name in ("soprano", "conductor")}
    panel = [{"model": "soprano", "temperature": 0}] * 2
    path = tmp_path / "duo.yaml"
    path.write_text(json.dumps({"models": models, "ensembles": {"default": {"panel": panel, "judge": "conductor"}}}))
    question = world.ask([world.skill("sum", Random(1))], Random(1)).text
    async with cappella.Runtime(path, tmp_path / "logs") as runtime:
        run = await runtime.ask(question, overrides=Overrides(options=Options(analysis="off")))
        assert (run.status, len(run.answers)) == ("ok", 2)
        items = [item async for item in runtime.stream(question, overrides=Overrides(options=Options(analysis="off")))]
    last = items[-1]
    assert isinstance(last, Run)
    assert "".join(item.chunk.content for item in items if isinstance(item, FinalDelta)) == last.content == run.content


async def test_answers_from_elsewhere_are_scored_and_compared_by_the_judge(demo: Deployment) -> None:
    rubric = [{"name": "right", "points": 5}, {"name": "whole", "points": 3}]
    asked = {"ensemble": "default", "prompt": QUESTION, "rubric": rubric, "want": ["scores", "preference", "ranking"]}
    answers = ["Gonil is in room 12.", {"model": "elsewhere", "content": "I do not know."}]
    body = {**asked, "answers": answers}
    async with aiohttp.ClientSession() as http, http.post(f"{demo.url}/v1/judge", json=body) as reply:
        value = await reply.json()
    assert (reply.status, value.get("status")) == (200, "ok"), value
    for scores in value["scores"]:
        assert [(each["criterion"], each["of"]) for each in scores["criteria"]] == [("right", 5), ("whole", 3)]
        assert all(0 <= each["points"] <= each["of"] for each in scores["criteria"])
    (pair,) = value["preferences"]
    assert {order["first"] for order in pair["orders"]} == {"candidate", "elsewhere"}
    assert pair["preferred"] in ("candidate", "elsewhere", None)
    assert sorted(each["role"] for each in value["usage"]["fusion_details"]) == ["choice", "choice", "score", "score"]
