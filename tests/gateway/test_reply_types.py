"""What the gateway answers with has the declared types, with no key more, and is the JSON that clients know."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from pydantic import TypeAdapter

from cappella.config import Runs
from cappella.config.options import Seat, Settings
from cappella.engines import status
from cappella.ensemble.run import Answer, Call, Failure, GateDecision, Panel, Run, Timings, Verdict
from cappella.errors import ConfigError
from cappella.gateway import openapi
from cappella.gateway.errors import describe
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.fields import Fusion
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.telemetry import trace
from cappella.types import ToolCall, Usage
from support.fake_engines import FakeEngines, gateway_config, serving

USER = [{"role": "user", "content": "Hi"}]
CALL = Call("panel", "ann", Usage(9, 4, 3, 1), 10.0, 0.25, 1.5)
FINAL = Call("final", "judge", Usage(20, 15, 5), 11.0, None, 0.5, tokens_per_step=1.234)
ANSWER = Answer("ann", "Yes.", "stop", CALL, reasoning="Hm.", tool_calls=[ToolCall(0, "c1", "look", '{"at": 1}')])
FAILURE = Failure("bob", "engine_broke", "bob broke off", 502, partial="Ye")
SETTINGS = Settings(ensemble="default", panel=(Seat("ann", "ann"), Seat("bob", "bob")), judge="judge", quorum=1, seed=7)
RUN = Run(
    run_id="run-1",
    settings=SETTINGS,
    status="degraded",
    verdict=Verdict(Answer("judge", "Yes, it is.", "stop", FINAL)),
    answers=[ANSWER],
    rounds=[Panel([ANSWER], []), Panel([ANSWER], [FAILURE])],
    labels={"A": "ann"},
    analysis=None,
    ranking=None,
    gate=None,
    failure_reason=None,
    calls=[CALL, FINAL],
    prompt_tokens=7,
    timings=Timings(1.5, None, 0.1, 1.6, 2.0, 1.9, 0.1, 12, 3),
)
FULL = replace(
    RUN,
    settings=SETTINGS.model_copy(update={"preset": "quick"}),
    verdict=Verdict(ANSWER, "ann", {"ann": 0.75}, {"ann": ("ann",)}, early_exit="equal"),
    ranking=("ann",),
    gate=GateDecision(False, "ann", "too long"),
    failure_reason="deadline",
)
PANEL_ANSWER = {
    "model": "ann",
    "content": "Yes.",
    "finish_reason": "stop",
    "reasoning": "Hm.",
    "tool_calls": [{"name": "look", "arguments": '{"at": 1}'}],
}
TRACE = {
    "run_id": "run-1",
    "status": "degraded",
    "ensemble": "default",
    "strategy": "synthesize",
    "judge_model": "judge",
    "analysis_models": ["ann", "bob"],
    "failed_models": [
        {"model": "bob", "error": "bob broke off", "status_code": 502, "reason": "engine_broke", "partial": "Ye"}
    ],
    "labels": {"A": "ann"},
    "seed": 7,
    "timings": {
        "panel_ms": 1500.0,
        "analysis_ms": None,
        "judge_first_token_ms": 100.0,
        "first_token_ms": 1600.0,
        "total_ms": 2000.0,
        "floor_ms": 1900.0,
        "overhead_ms": 100.0,
        "early_prefill_tokens": 12,
        "late_prefill_tokens": 3,
    },
    "usage": {
        "prompt_tokens": 29,
        "completion_tokens": 8,
        "total_tokens": 37,
        "prompt_tokens_details": {"cached_tokens": 19},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
    "analysis": None,
}
HAPPENED = {
    "preset": "quick",
    "gate": {"bypass": False, "model": "ann", "reason": "too long"},
    "chosen": "ann",
    "probabilities": {"ann": 0.75},
    "votes": {"ann": ["ann"]},
    "ranking": ["ann"],
    "early_exit": "equal",
    "failure_reason": "deadline",
}
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 0},
    "fusion_details": [
        {
            "role": "panel",
            "model": "ann",
            "prompt_tokens": 9,
            "cached_tokens": 4,
            "completion_tokens": 3,
            "reasoning_tokens": 1,
            "start_ms": 0.0,
            "first_token_ms": 250.0,
            "ms": 1500.0,
        },
        {
            "role": "final",
            "model": "judge",
            "prompt_tokens": 20,
            "cached_tokens": 15,
            "completion_tokens": 5,
            "reasoning_tokens": 0,
            "tokens_per_step": 1.23,
            "start_ms": 1000.0,
            "first_token_ms": None,
            "ms": 500.0,
        },
    ],
}

MEMBERS_USAGE = {
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
"""Where a member's answer was chosen."""


def on_the_wire(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


def test_the_trace_of_a_run_is_the_json_that_clients_know() -> None:
    everything = Fusion(include_intermediate_responses=True)
    assert on_the_wire(trace.fusion(RUN, Fusion())) == TRACE
    shown = {"responses": [PANEL_ANSWER], "rounds": [[PANEL_ANSWER], [PANEL_ANSWER]]}
    without_analysis = {name: value for name, value in TRACE.items() if name != "analysis"}
    assert on_the_wire(trace.fusion(FULL, everything)) == {**without_analysis, **shown, **HAPPENED}
    assert on_the_wire(trace.run_usage(RUN)) == USAGE
    thought = replace(FINAL, usage=Usage(20, 0, 4, 2))
    twice = trace.run_usage(replace(RUN, verdict=Verdict(replace(RUN.answer, thought=thought))))
    assert (twice["prompt_tokens"], twice["completion_tokens"], twice["total_tokens"]) == (7, 9, 16)
    assert twice["completion_tokens_details"]["reasoning_tokens"] == 2


def test_the_whole_replies_are_the_json_that_clients_know() -> None:
    head = {"model": "cappella/default"}
    chat = on_the_wire(ChatRequest.model_validate({**head, "messages": USER}).to_response(FULL))
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    message = {
        "role": "assistant",
        "content": "Yes.",
        "reasoning": "Hm.",
        "reasoning_content": "Hm.",
        "tool_calls": [call],
    }
    assert chat.pop("choices") == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert (chat["object"], chat["usage"], set(chat)) == (
        "chat.completion",
        USAGE | MEMBERS_USAGE,
        {"id", "object", "created", "model", "system_fingerprint", "usage", "fusion"},
    )
    said = on_the_wire(MessagesRequest.model_validate({**head, "messages": USER, "max_tokens": 9}).to_response(RUN))
    assert said.pop("fusion") == TRACE
    assert said.pop("usage").pop("fusion_details") == USAGE["fusion_details"]
    assert said == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "cappella/default",
        "content": [{"type": "text", "text": "Yes, it is."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    response = on_the_wire(ResponsesRequest.model_validate({**head, "input": "Hi"}).to_response(RUN))
    del response["created_at"], response["completed_at"], response["output"], response["usage"]
    assert response.pop("fusion") == TRACE
    assert response == {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "background": False,
        "store": False,
        "previous_response_id": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": "cappella/default",
        "parallel_tool_calls": True,
        "temperature": None,
        "top_p": None,
        "frequency_penalty": None,
        "presence_penalty": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
    }


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        ("/v1/chat/completions", {"messages": USER}, "ChatCompletion"),
        ("/v1/messages", {"messages": USER, "max_tokens": 9}, "Message"),
        ("/v1/responses", {"input": "Hi"}, "Response"),
        ("/v1/chat/completions", {"messages": []}, "Error"),
        ("/v1/models", None, "Models"),
        ("/health", None, "Health"),
        ("/ready", None, "Readiness"),
        ("/api/machine", None, "Machine"),
    ],
)
async def test_a_reply_has_its_declared_type(fake_engines: FakeEngines, path: str, fields: Any, name: str) -> None:
    fusion = {"model": "cappella/default", "fusion": {"include_intermediate_responses": True}}
    async with serving(fake_engines, gateway_config()) as url, aiohttp.ClientSession() as http:
        asked = http.get(url + path) if fields is None else http.post(url + path, json={**fusion, **fields})
        async with asked as reply:
            body = await reply.json()
    TypeAdapter(openapi.REPLIES[name]).validate_python(body, strict=True)
    declared = openapi.document(keyed=False)["components"]["schemas"]
    assert set(body) <= set(declared[name]["properties"])
    for part, kind in (("fusion", "Trace"), ("usage", "Usage")):
        known = declared["MessageUsage"] if name == "Message" and part == "usage" else declared[kind]
        if name != "Response" or part == "fusion":
            assert set(body.get(part, {})) <= set(known["properties"])


async def test_engines_and_runs_have_their_declared_fields(fake_engines: FakeEngines, tmp_path: Path) -> None:
    fake_engines.engines["ann"].status.failures.append(status.Failure(1.0, "killed", None))
    config = gateway_config()
    runs = Runs(file=tmp_path / "runs.sqlite", content=True)
    config = config.model_copy(update={"server": config.server.model_copy(update={"runs": runs})})
    ask = {"model": "cappella/default", "messages": USER}
    async with serving(fake_engines, config) as url, aiohttp.ClientSession(url) as http:

        async def get(path: str) -> Any:
            async with http.get(path) as reply:
                return await reply.json()

        async with http.post("/v1/chat/completions", json=ask) as reply:
            run_id = (await reply.json())["id"]
        run, listed = await get(f"/api/runs/{run_id}"), await get("/api/runs")
        ready, machine = await get("/ready"), await get("/api/machine")
    for body, name in ((run, "Run"), (listed, "Runs"), (ready, "Readiness"), (machine, "Machine")):
        TypeAdapter(openapi.REPLIES[name]).validate_python(body, strict=True)
    declared = openapi.document(keyed=False)["components"]["schemas"]
    parts = [(run, "Run"), (listed["data"][0], "RunSummary"), (ready["engines"]["ann"], "EngineReadiness")]
    parts += [(machine["engines"]["ann"], "EngineDetails"), (machine["memory"][0], "MemoryNow")]
    for body, name in parts:
        assert set(body) == set(declared[name]["properties"]), name


def test_a_config_error_has_its_declared_fields() -> None:
    body = describe(ConfigError("c.yaml:3: models.ann", "no such folder", "Check the path"))
    assert (body["place"], body["problem"], body["hint"]) == (
        "c.yaml:3: models.ann",
        "no such folder",
        "Check the path",
    )
    declared = openapi.document(keyed=False)["components"]["schemas"]["ErrorBody"]["properties"]
    assert set(body) <= set(declared)
