"""The trace of a request: its spans, their attributes and its parent."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from cappella.config import Runs
from support.fake_engines import MEMBERS, FakeEngines, eventually, judge_script, serving
from support.otlp_collector import Collected, ask, attributes, running_collector, traced
from support.scripted_engine import Script

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


async def trace_of(fake_engines: FakeEngines, headers: Any = None, server: Any = None, **more: Any) -> Collected:
    """The spans of a gateway that served one request and stopped."""
    async with running_collector() as collected, serving(fake_engines, traced(collected.url, **(server or {}))) as url:
        await ask(url, headers=headers, **more)
    return collected


def is_within(inner: Span, outer: Span) -> bool:
    return (
        outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano <= outer.end_time_unix_nano
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_is_one_trace_of_its_request_queue_rounds_and_calls(
    fake_engines: FakeEngines, stream: bool
) -> None:
    collected = await trace_of(fake_engines, stream=stream)
    assert len({span.trace_id for span in collected.spans}) == 1
    root = collected.one("POST /v1/chat/completions")
    assert (root.parent_span_id, root.kind) == (b"", Span.SPAN_KIND_SERVER)
    assert [span.name for span in collected.children(root)] == ["queue", "invoke_workflow default"]
    run = collected.one("invoke_workflow default")
    assert [span.name for span in collected.children(run)] == ["round 1", "chat judge", "chat judge"]
    assert {span.name for span in collected.children(collected.one("round 1"))} == {f"chat {m}" for m in MEMBERS}
    roles = [attributes(span)["cappella.role"] for span in collected.children(run) if span.name == "chat judge"]
    assert roles == ["analysis", "final"]
    by_id = {span.span_id: span for span in collected.spans}
    children = [span for span in collected.spans if span.parent_span_id]
    assert all(is_within(span, by_id[span.parent_span_id]) for span in children)


async def test_spans_follow_the_conventions_for_generative_ai(fake_engines: FakeEngines) -> None:
    collected = await trace_of(fake_engines, temperature=0.5)
    run = attributes(collected.one("invoke_workflow"))
    assert run["gen_ai.operation.name"] == "invoke_workflow"
    assert run["gen_ai.workflow.name"] == "default"
    assert run["cappella.run_id"].startswith("run-")
    assert run["cappella.status"] == "ok"
    call = attributes(collected.one("chat ann"))
    assert call["gen_ai.operation.name"] == "chat"
    assert call["gen_ai.provider.name"] == "vllm"
    assert call["gen_ai.request.model"] == "ann"
    assert call["gen_ai.usage.input_tokens"] == 10
    assert call["gen_ai.usage.cache_read.input_tokens"] == 4
    assert call["gen_ai.usage.output_tokens"] == 2
    assert call["gen_ai.response.finish_reasons"] == ["stop"]
    assert 0 < call["gen_ai.response.time_to_first_chunk"] < 10
    final = next(span for span in map(attributes, collected.named("chat judge")) if span["cappella.role"] == "final")
    assert final["gen_ai.request.temperature"] == 0.5
    assert final["gen_ai.response.finish_reasons"] == ["stop"]


async def test_prompts_and_answers_are_not_in_a_trace(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("a-secret-answer",)))
    fake_engines.let("bob", Script(("a-secret-answer",), ending="error"))
    fake_engines.let("judge", judge_script(Script(("a-secret-verdict",))))
    collected = await trace_of(fake_engines)
    assert len(collected.spans) > 5
    assert b"secret" not in b"".join(collected.bodies)


async def test_early_prefill_is_in_the_trace(fake_engines: FakeEngines) -> None:
    words = tuple("word " * 30 for _ in range(30))
    fake_engines.let("ann", Script(words))
    fake_engines.let("bob", Script(words))
    fake_engines.let("cat", Script(words, pause_s=0.02))
    collected = await trace_of(fake_engines)
    roles = [attributes(span)["cappella.role"] for span in collected.named("chat judge")]
    assert roles.count("prefill") >= 1
    assert attributes(collected.one("invoke_workflow"))["cappella.early_prefill_tokens"] > 0


async def test_each_round_has_its_own_calls(fake_engines: FakeEngines) -> None:
    collected = await trace_of(fake_engines, fusion={"layers": 2, "review": True})
    for number in (1, 2):
        inside = collected.children(collected.one(f"round {number}"))
        assert {span.name for span in inside} == {f"chat {m}" for m in MEMBERS}
    assert sum(attributes(span)["cappella.role"] == "review" for span in collected.named("chat ")) == 3


async def test_a_failed_member_has_a_reason_and_the_run_is_degraded(fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(ending="break"))
    collected = await trace_of(fake_engines)
    bob = collected.one("chat bob")
    assert bob.status.code == Status.STATUS_CODE_ERROR
    assert attributes(bob)["error.type"] == "engine_broke"
    assert attributes(bob)["cappella.cut_short"]
    assert attributes(collected.one("invoke_workflow"))["cappella.status"] == "degraded"
    assert collected.one("POST").status.code == Status.STATUS_CODE_UNSET


async def test_a_failed_run_has_a_trace_with_its_error(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="break"))
    fake_engines.let("bob", Script(()))
    collected = await trace_of(fake_engines)
    root, run = collected.one("POST"), collected.one("invoke_workflow")
    assert (attributes(root)["http.response.status_code"], attributes(root)["error.type"]) == (
        502,
        "InsufficientQuorum",
    )
    assert root.status.code == run.status.code == Status.STATUS_CODE_ERROR
    assert attributes(run)["error.type"] == "InsufficientQuorum"
    assert attributes(run)["cappella.failed"] == ["ann: engine_broke", "bob: empty_answer"]
    assert collected.one("chat cat")


async def test_a_caller_s_trace_is_continued(fake_engines: FakeEngines) -> None:
    collected = await trace_of(
        fake_engines, headers={"traceparent": f"{CALLER}-01"}, server={"tracing": {"share": 0.0}}
    )
    root = collected.one("POST")
    assert root.trace_id.hex() == CALLER.split("-")[1]
    assert root.parent_span_id.hex() == CALLER.split("-")[2]
    assert {span.trace_id for span in collected.spans} == {root.trace_id}


async def test_an_unsampled_caller_gets_no_trace(fake_engines: FakeEngines) -> None:
    assert not (await trace_of(fake_engines, headers={"traceparent": f"{CALLER}-00"})).spans


async def test_a_share_of_zero_makes_no_trace(fake_engines: FakeEngines) -> None:
    assert not (await trace_of(fake_engines, server={"tracing": {"share": 0.0}})).spans


@pytest.mark.parametrize("broken", ["", "00-zz", f"{CALLER}-01-more-of-it", "x" * 5000])
async def test_a_broken_traceparent_begins_a_trace(fake_engines: FakeEngines, broken: str) -> None:
    assert (await trace_of(fake_engines, headers={"traceparent": broken})).one("POST").parent_span_id == b""


async def test_a_call_of_a_single_model_has_a_trace(fake_engines: FakeEngines) -> None:
    collected = await trace_of(fake_engines, model="ann")
    root, call = collected.one("POST"), collected.one("chat ann")
    assert [span.name for span in collected.children(root)] == ["queue", "chat ann"]
    assert attributes(call)["gen_ai.usage.output_tokens"] == 2


async def test_a_rejected_request_has_no_trace(fake_engines: FakeEngines) -> None:
    assert not (await trace_of(fake_engines, model="cappella/nobody")).spans


async def test_no_global_tracer_is_set(fake_engines: FakeEngines) -> None:
    await trace_of(fake_engines)
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_response_in_the_background_has_the_trace_of_its_run(
    fake_engines: FakeEngines, tmp_path: Path, stream: bool, fails: bool
) -> None:
    if fails:
        for name in MEMBERS:
            fake_engines.let(name, Script(ending="break"))
    async with running_collector() as collected:
        config = traced(collected.url, runs=Runs(file=tmp_path / "runs.sqlite", content=True))
        async with serving(fake_engines, config) as url, aiohttp.ClientSession(url) as http:
            body = {"model": "cappella/default", "input": "Hi", "background": True, "stream": stream}
            async with http.post("/v1/responses", json=body, headers={"traceparent": f"{CALLER}-01"}) as reply:
                assert reply.status == 200
                await reply.read()
            finished = fake_engines.reloader.state.metrics.registry.get_sample_value
            queued = {"name": "cappella/default"}
            assert await eventually(lambda: finished("cappella_queue_seconds_count", queued) == 1.0)
    root = collected.one("POST /v1/responses")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == tuple(CALLER.split("-")[1:3])
    assert attributes(root)["cappella.background"] is True
    assert attributes(root).get("error.type") == ("InsufficientQuorum" if fails else None)
    queue, run = collected.children(root)
    assert (queue.name, run.name) == ("queue", "invoke_workflow default")
    assert is_within(run, root)
    assert is_within(queue, root)
    assert collected.children(run)
