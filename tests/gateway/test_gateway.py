"""The HTTP face over a loopback port: fields, statuses, pass-through, clients that leave."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella import errors
from cappella.ensemble.errors import PanelFailed
from cappella.gateway.errors import HTTP_TABLE
from cappella.vocabulary import STRATEGIES
from support.fake_engines import JSON, MEMBERS, FakeEngines, eventually, judge_script
from support.scripted_engine import Script, too_long

USER = [{"role": "user", "content": "Say hello."}]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "cappella/default", "messages": USER, **more}


async def post(url: str, data: Any) -> tuple[int, Any, Any]:
    """Status, headers and JSON of one chat completion."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", data=raw, headers=JSON) as reply,
    ):
        return reply.status, reply.headers, await reply.json(content_type=None)


async def test_an_ensemble_answers_as_one_model(gateway: str) -> None:
    status, _, reply = await post(gateway, body(fusion={"include_intermediate_responses": True}))
    assert status == 200
    assert reply["model"] == "cappella/default"
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "The final answer"}
    assert reply["fusion"]["status"] == "ok"
    assert [each["model"] for each in reply["fusion"]["responses"]] == list(MEMBERS)
    assert set(reply["fusion"]["labels"].values()) == set(MEMBERS)
    cost = reply["fusion"]["usage"]
    assert cost["prompt_tokens"] == sum(each["prompt_tokens"] for each in reply["usage"]["fusion_details"]) == 50
    assert cost["prompt_tokens_details"]["cached_tokens"] == 20


async def test_include_flags_shape_the_trace(gateway: str) -> None:
    _, _, reply = await post(gateway, body(fusion={"include_analysis": False}))
    assert not {"analysis", "responses"} & set(reply["fusion"])


@pytest.mark.parametrize("spelling", ["fusion", "plugins"])
async def test_both_spellings_override_the_ensemble(gateway: str, fake_engines: FakeEngines, spelling: str) -> None:
    wanted = {
        "analysis_models": ["bob", "bob"],
        "model": "cat",
        "analysis": "off",
        "temperature": 0.3,
        "max_completion_tokens": 9,
        "min_successful_responses": 1,
        "round_timeout_seconds": 5,
        "deadline_seconds": 6,
    }
    extra = {"fusion": wanted} if spelling == "fusion" else {"plugins": [{"id": "fusion", **wanted}]}
    _, _, reply = await post(gateway, body(seed=5, temperature=0.9, max_tokens=70, stop=["x"], **extra))
    assert reply["fusion"]["analysis_models"] == ["bob", "bob#2"]
    assert reply["fusion"]["judge_model"] == "cat"
    asked = fake_engines.servers["bob"].bodies
    assert [(each["temperature"], each["max_completion_tokens"]) for each in asked] == [(0.3, 9)] * 2
    assert {each["seed"] for each in asked} == {5, 6}
    final = fake_engines.servers["cat"].bodies[0]
    assert (final["temperature"], final["max_completion_tokens"], final["stop"]) == (0.9, 70, ["x"])
    assert not fake_engines.servers["ann"].bodies


@pytest.mark.parametrize(
    ("more", "status", "param", "code"),
    [
        ({"model": "nobody"}, 404, "model", "model_not_found"),
        ({"model": "cappella/nothing"}, 404, "model", "model_not_found"),
        ({"model": 3}, 400, "model", "invalid_value"),
        ({"functions": [{"name": "f"}]}, 400, "functions", "invalid_value"),
        ({"fusion": {"modle": "ann"}}, 400, "fusion.modle", "unknown_field"),
        ({"plugins": [{"id": "fusion", "x": 1}]}, 400, "plugins.0.x", "unknown_field"),
        ({"plugins": [{"x": 1}]}, 400, "plugins.0.id", "invalid_value"),
        ({"plugins": [{"id": "fusion"}], "fusion": {"model": "ann"}}, 400, None, "invalid_value"),
        ({"n": 2}, 400, "n", "invalid_value"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"fusion": {"analysis_models": ["ann"] * 9}}, 400, "fusion.analysis_models", "invalid_value"),
        ({"fusion": {"analysis_models": ["cappella/default"]}}, 400, "fusion.analysis_models", "nested_ensemble"),
        ({"fusion": {"model": "cappella/fixed"}}, 400, "fusion.model", "nested_ensemble"),
        ({"fusion": {"model": "nobody"}}, 404, "fusion.model", "model_not_found"),
        ({"fusion": {"min_successful_responses": 4}}, 400, "fusion.min_successful_responses", "invalid_value"),
        ({"model": "cappella/fixed", "fusion": {"model": "ann"}}, 400, "fusion", "overrides_forbidden"),
        ({"model": "ann", "fusion": {"model": "bob"}}, 400, "fusion", "invalid_value"),
    ],
)
async def test_a_field_that_is_not_honoured_is_refused_by_name(
    gateway: str, more: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    got, _, reply = await post(gateway, body(**more))
    assert (got, reply["error"]["param"], reply["error"]["code"]) == (status, param, code)
    assert reply["error"]["type"] == "invalid_request_error"


async def test_an_ensemble_without_overrides_takes_fields_that_override_nothing(gateway: str) -> None:
    status, _, _ = await post(gateway, body(model="cappella/fixed", fusion={"include_analysis": False}))
    assert status == 200


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [(b"{", 400, "invalid_json"), (b"[]", 400, "invalid_json"), (b" " * 300_000, 413, "body_too_large")],
)
async def test_bad_bodies(gateway: str, data: bytes, status: int, code: str) -> None:
    got, _, reply = await post(gateway, data)
    assert (got, reply["error"]["code"]) == (status, code)


async def test_unknown_paths_and_methods_have_the_shape_of_errors(gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{gateway}/v1/nothing") as reply:
            assert (reply.status, "message" in (await reply.json())["error"]) == (404, True)
        async with http.get(f"{gateway}/v1/chat/completions") as reply:
            assert (reply.status, "message" in (await reply.json())["error"]) == (405, True)


async def test_loading_engines_are_503_with_retry_after(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].status.state = "loading"
    status, headers, reply = await post(gateway, body())
    assert (status, headers["Retry-After"], reply["error"]["code"]) == (503, "5", "model_not_ready")
    fake_engines.engines["ann"].status.state = "loading"
    status, _, reply = await post(gateway, {"model": "ann", "messages": USER})
    assert (status, reply["error"]["code"]) == (503, "model_not_ready")


@pytest.mark.parametrize("stream", [False, True])
async def test_below_quorum_is_502_with_the_partials(gateway: str, fake_engines: FakeEngines, stream: bool) -> None:
    fake_engines.let("ann", Script(("par",), ending="break"))
    fake_engines.let("bob", Script(ending="garbage"))
    status, _, reply = await post(gateway, body(stream=stream))
    assert (status, reply["error"]["code"]) == (502, "insufficient_quorum")
    assert [each["model"] for each in reply["error"]["responses"]] == ["cat"]
    assert reply["error"]["failed_models"][0]["partial"] == "par"


async def test_late_members_are_504_and_long_prompts_400(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="hang"))
    fake_engines.let("bob", Script(ending="hang"))
    status, _, reply = await post(gateway, body(fusion={"deadline_seconds": 0.3}))
    assert (status, reply["error"]["code"]) == (504, "deadline_exceeded")
    assert all(key in reply["error"]["message"] for key in ("round_timeout_seconds", "deadline_seconds"))
    fake_engines.let("ann", too_long(limit=100))
    fake_engines.let("bob", too_long(limit=100))
    status, _, reply = await post(gateway, body())
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    assert "ann, bob" in reply["error"]["message"]
    assert "maximum context length is 100 tokens" in reply["error"]["message"]


async def test_a_members_request_and_reply_pass_byte_for_byte(gateway: str, fake_engines: FakeEngines) -> None:
    raw = b'{"model":  "ann", "messages": [{"role":"user","content":"\\u00e9"}], "logprobs": true}'
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{gateway}/v1/chat/completions", data=raw, headers=JSON) as reply:
            whole = await reply.read()
        assert reply.content_type == "application/json"
        async with http.post(
            f"{gateway}/v1/chat/completions", data=raw[:-1] + b', "stream": true}', headers=JSON
        ) as reply:
            streamed = await reply.read()
        assert reply.content_type == "text/event-stream"
    assert fake_engines.servers["ann"].raw[0] == raw
    assert json.loads(whole)["choices"][0]["message"]["content"] == "Hello there"
    assert streamed.startswith(b'data: {"id": "x"')
    assert streamed.endswith(b"data: [DONE]\n\n")


async def test_an_engines_refusal_reaches_the_client_as_it_is(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", too_long(77))
    status, _, reply = await post(gateway, {"model": "ann", "messages": USER})
    assert (status, reply) == too_long(77).refuse


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_a_client_that_goes_away_aborts_every_inner_call(
    gateway: str, fake_engines: FakeEngines, model: str, stream: bool
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("never",), pause_s=3600))
    call = asyncio.create_task(post(gateway, {"model": model, "messages": USER, "stream": stream}))
    assert await eventually(lambda: fake_engines.running == (1 if model == "ann" else 3))
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await eventually(lambda: fake_engines.running == 0)


async def test_models_lists_ensembles_members_and_strategies(gateway: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/v1/models") as reply:
        models = await reply.json()
    listed = {each["id"]: each for each in models["data"]}
    assert models["strategies"] == {name: traits.summary for name, traits in STRATEGIES.items()}
    assert set(listed) == {"cappella/default", "cappella/fixed", "cappella/tools", *MEMBERS, "judge"}
    assert listed["cappella/default"]["panel"] == list(MEMBERS)


async def test_ready_needs_quorum_and_judge(gateway: str, fake_engines: FakeEngines) -> None:
    async def ready() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as http, http.get(f"{gateway}/ready") as reply:
            return reply.status, await reply.json()

    assert (await ready())[0] == 200
    fake_engines.engines["ann"].status.state = "failed"
    status, state = await ready()
    assert (status, state["engines"]["ann"]["state"]) == (200, "failed")
    fake_engines.engines["bob"].status.state = "restarting"
    assert (await ready())[0] == 503
    fake_engines.engines["bob"].status.state = "ready"
    fake_engines.engines["judge"].status.state = "loading"
    assert (await ready())[0] == 503
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/health") as reply:
        assert reply.status == 200


async def test_metrics_count_runs_and_carry_the_engines_own(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("bob", Script(ending="break"))
    await post(gateway, body())
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/metrics") as reply:
        text = await reply.text()
    assert 'cappella_runs_total{ensemble="default",status="degraded"} 1.0' in text
    assert 'cappella_member_failures_total{model="bob",reason="engine_broke"} 1.0' in text
    assert 'cappella_runs_in_flight{ensemble="default"} 0.0' in text
    assert 'vllm:num_requests_running{model="ann",model_name="ann"} 0.0' in text
    assert text.count("# TYPE vllm:num_requests_running gauge") == 1


def test_every_error_has_its_row_in_the_table() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.CappellaError)]
    abstract = {errors.CappellaError, PanelFailed, errors.ConfigError, errors.DoesNotFit}
    # Told to a model, and to an operator.
    abstract |= {errors.ToolServerLost, errors.ToolCallFailed}
    for kind in set(kinds) - abstract:
        assert any(parent in HTTP_TABLE for parent in kind.__mro__ if parent is not Exception), kind


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["messages", "stream", "fusion", "plugins", "stop", "seed", "temperature", "max_tokens", "n"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(fields=st.dictionaries(FIELDS, ANY_JSON, max_size=3))
async def test_no_body_makes_an_internal_error(gateway: str, fields: dict[str, Any]) -> None:
    status, _, reply = await post(gateway, {"model": "cappella/default", **fields, "stream": False})
    assert status in (200, 400), reply


async def test_a_judges_answer_to_a_second_run_is_not_mixed_with_the_first(
    gateway: str, fake_engines: FakeEngines
) -> None:
    fake_engines.let("judge", judge_script(Script(("a", "b", "c"), pause_s=0.02)))
    replies = await asyncio.gather(*(post(gateway, body(fusion={"analysis": "off"})) for _ in range(20)))
    assert {reply["choices"][0]["message"]["content"] for _, _, reply in replies} == {"abc"}
    assert len({reply["id"] for _, _, reply in replies}) == 20


@pytest.mark.parametrize("stream", [False, True])
async def test_a_models_own_fault_is_an_error_of_ours_and_not_its_500(
    fake_engines: FakeEngines, gateway: str, stream: bool
) -> None:
    fault = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}
    fake_engines.let("ann", Script(refuse=(500, fault)))
    status, _, reply = await post(gateway, body(model="ann", stream=stream))
    assert (status, reply["error"]["code"]) == (502, "engine_error")
    assert reply["error"]["message"] == "the engine answered 500: see its log"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_of_a_model_is_aborted_in_the_engine_when_its_client_leaves(
    fake_engines: FakeEngines, gateway: str, stream: bool
) -> None:
    fake_engines.let("ann", Script(ending="hang" if stream else "held"))
    under_way = asyncio.create_task(post(gateway, body(model="ann", stream=stream)))
    assert await eventually(lambda: fake_engines.servers["ann"].running == 1)
    under_way.cancel()
    assert await eventually(lambda: fake_engines.servers["ann"].aborted == 1)
    assert fake_engines.servers["ann"].running == 0
