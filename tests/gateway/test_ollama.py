"""Ollama's API, by bodies as its own clients send them."""

import json
from typing import Any

import aiohttp
import pytest

from support.fake_engines import MEMBERS, FakeEngines, gateway_config, serving
from support.scripted_engine import Script

USER: Any = [{"role": "user", "content": "Who is Ann?"}]
CALL = Script((), reasoning="Hm.", calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


async def post(url: str, path: str, **body: Any) -> tuple[int, str, list[Any]]:
    async with aiohttp.ClientSession() as http, http.post(f"{url}{path}", json=body) as reply:
        text = await reply.text()
        return reply.status, reply.content_type, [json.loads(line) for line in text.splitlines()]


async def get(url: str, path: str) -> Any:
    async with aiohttp.ClientSession() as http, http.get(f"{url}{path}") as reply:
        assert reply.status == 200
        return await reply.json()


@pytest.mark.parametrize(
    ("model", "text"), [("cappella/default", "The final answer"), ("ann:latest", "Hello there"), ("ann", "Hello there")]
)
async def test_a_chat_streams_lines_unless_told_not_to(gateway: str, model: str, text: str) -> None:
    status, kind, pieces = await post(gateway, "/api/chat", model=model, messages=USER)
    assert (status, kind) == (200, "application/x-ndjson")
    assert "".join(piece["message"]["content"] for piece in pieces) == text
    assert [piece["done"] for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    status, kind, (whole,) = await post(gateway, "/api/chat", model=model, messages=USER, stream=False, tools=[])
    assert (status, kind, whole["message"]) == (200, "application/json", {"role": "assistant", "content": text})
    for last in (pieces[-1], whole):
        assert (last["model"], last["done_reason"], last["load_duration"]) == (model, "stop", 0)
        assert last["prompt_eval_count"] > 0 < last["eval_count"]
        assert last["total_duration"] >= last["eval_duration"] > 0


@pytest.mark.parametrize(("model", "text"), [("cappella/default", "The final answer"), ("ann", "Hello there")])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_is_answered(
    gateway: str, fake_engines: FakeEngines, model: str, text: str, stream: bool
) -> None:
    options = {"temperature": 0.2, "top_k": 5, "num_predict": 9, "seed": 3, "stop": ["END"], "num_ctx": 4096}
    _, _, pieces = await post(
        gateway, "/api/generate", model=model, prompt="Hi", system="Be brief.", options=options, stream=stream
    )
    assert "".join(piece["response"] for piece in pieces) == text
    body = fake_engines.servers["judge" if model != "ann" else "ann"].bodies[-1]
    assert (body["temperature"], body["top_k"], body["seed"], body["stop"]) == (0.2, 5, 3, ["END"])
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "num_ctx" not in body


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_an_option_that_nobody_knows_is_told(gateway: str, fake_engines: FakeEngines, model: str) -> None:
    options = {"num_ctx": 4096, "mirostat": 0, "mirostat_tau": 5.0, "repeat_last_n": 64, "num_gpu": None, "dreams": 1}
    body = {"model": model, "messages": USER, "options": options, "stream": False}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{gateway}/api/chat", json=body) as reply:
            told, answer = reply.headers["x-cappella-ignored"], await reply.json()
        async with http.get(f"{gateway}/metrics") as metrics:
            counted = 'cappella_ignored_fields_total{path="/v1/chat/completions"} 2.0'
            assert counted in (await metrics.text()).splitlines()
    assert told == "options.repeat_last_n, options.dreams"
    if "fusion" in answer:
        assert answer["fusion"]["ignored"] == told.split(", ")
    assert not any("dreams" in json.dumps(server.bodies) for server in fake_engines.servers.values())


async def test_an_operator_may_have_unknown_options_refused(fake_engines: FakeEngines) -> None:
    config = gateway_config()
    strict = config.model_copy(update={"server": config.server.model_copy(update={"unknown_fields": "refuse"})})
    async with serving(fake_engines, strict) as url:
        for model in ("cappella/default", "ann"):
            status, _, (reply,) = await post(url, "/api/chat", model=model, messages=USER, options={"dreams": 1})
            assert (status, "options.dreams" in reply["error"]) == (400, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_goes_round(gateway: str, fake_engines: FakeEngines, stream: bool) -> None:
    fake_engines.let("judge", CALL)
    asked = {"model": "cappella/tools", "tools": [TOOL], "stream": stream, "think": True, "keep_alive": "5m"}
    _, _, pieces = await post(gateway, "/api/chat", messages=USER, **asked)
    (call,) = [call for piece in pieces for call in piece["message"].get("tool_calls", ())]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("look_up", {"name": "Ann"})
    assert "".join(piece["message"].get("thinking", "") for piece in pieces) == "Hm."
    history = [*USER, {"role": "assistant", "content": "", "tool_calls": [{"function": call["function"]}]}]
    result = {"role": "tool", "tool_name": "look_up", "content": "A pilot."}
    status, _, _ = await post(gateway, "/api/chat", messages=[*history, result], **asked)
    sent = fake_engines.servers["ann"].bodies[-1]["messages"]
    assert (status, sent[-1]["tool_call_id"]) == (200, sent[-2]["tool_calls"][0]["id"])
    assert json.loads(sent[-2]["tool_calls"][0]["function"]["arguments"]) == {"name": "Ann"}


async def test_a_models_tool_call_is_one_piece_with_an_object(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", CALL)
    _, _, pieces = await post(gateway, "/api/chat", model="ann", messages=USER, tools=[TOOL])
    calls = [call for piece in pieces for call in piece["message"].get("tool_calls", ())]
    assert [call["function"]["arguments"] for call in calls] == [{"name": "Ann"}]


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        ("json", {"type": "json_object"}),
        ({"type": "object"}, {"type": "json_schema", "json_schema": {"name": "format", "schema": {"type": "object"}}}),
    ],
)
async def test_a_format_is_an_output_format(gateway: str, fake_engines: FakeEngines, form: Any, sent: Any) -> None:
    fake_engines.let("ann", Script(('{"a": 1}',)))
    status, _, _ = await post(gateway, "/api/generate", model="ann", prompt="Hi", format=form)
    assert (status, fake_engines.servers["ann"].bodies[-1]["response_format"]) == (200, sent)


async def test_an_image_is_a_part_of_its_message(gateway: str, fake_engines: FakeEngines) -> None:
    await post(gateway, "/api/chat", model="ann", messages=[{**USER[0], "images": [PNG]}])
    _, image = fake_engines.servers["ann"].bodies[-1]["messages"][0]["content"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{PNG}"


async def test_nothing_to_answer_loads_the_model(gateway: str, fake_engines: FakeEngines) -> None:
    _, _, (chat,) = await post(gateway, "/api/chat", model="cappella/default", messages=[])
    _, _, (text,) = await post(gateway, "/api/generate", model="ann", keep_alive=0)
    assert [(each["done"], each["done_reason"]) for each in (chat, text)] == [(True, "load"), (True, "unload")]
    assert not any(server.bodies for server in fake_engines.servers.values())


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/chat", {"model": "nobody", "messages": USER}, 404, "no model 'nobody'"),
        ("/api/chat", {"messages": USER}, 400, "model must be a string"),
        ("/api/chat", {"model": "ann", "messages": [{"role": "user", "images": [1]}]}, 400, "base64"),
        ("/api/chat", {"model": "ann", "messages": USER, "options": {"mirostat": 2}}, 400, "options.mirostat"),
        ("/api/generate", {"model": "ann", "prompt": "Hi", "raw": True}, 400, "/v1/completions"),
        ("/api/show", {"model": "nobody"}, 404, "no model 'nobody'"),
    ],
)
async def test_errors_are_texts(gateway: str, path: str, body: Any, status: int, words: str) -> None:
    got, _, (reply,) = await post(gateway, path, **body)
    assert (got, words in reply["error"]) == (status, True)


async def test_an_error_within_a_stream_is_its_last_line(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_engines.let("ann", Script(("half",), ending="error"))
    _, _, pieces = await post(gateway, "/api/chat", model="ann", messages=USER)
    assert (pieces[0]["message"]["content"], isinstance(pieces[-1]["error"], str)) == ("half", True)
    monkeypatch.setattr("cappella.ensemble.stream.EARLY_FAILURE_S", 0.0)
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="error"))
    status, _, pieces = await post(gateway, "/api/chat", model="cappella/default", messages=USER)
    assert (status, pieces[-1]["code"]) == (200, "insufficient_quorum")


async def test_a_refusal_of_the_engine_is_a_text(gateway: str, fake_engines: FakeEngines) -> None:
    refusal = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
    fake_engines.let("ann", Script(refuse=(400, refusal)))
    status, _, (reply,) = await post(gateway, "/api/chat", model="ann", messages=USER)
    assert (status, reply["error"]) == (400, "too long")


async def test_the_lists_are_ollamas(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.engines["bob"].status.state = "loading"
    assert tuple(map(int, (await get(gateway, "/api/version"))["version"].split("."))) >= (0, 6, 4)
    listed = {each["name"] for each in (await get(gateway, "/api/tags"))["models"]}
    running = {each["name"] for each in (await get(gateway, "/api/ps"))["models"]}
    assert {"cappella/default", "ann", "bob"} <= listed
    assert listed - running == {"bob"}
    _, _, (shown,) = await post(gateway, "/api/show", model="cappella/tools")
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["model_info"]["cappella.context_length"] == 25
    assert (await get(gateway, "/api/machine"))["engines"]
