"""What real clients send, row by row of the public reports: taken as the client means it, or refused in the right words."""

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
import zstandard

from cappella.types import Capabilities
from support.fake_engines import FakeEngines, gateway_config, judge_script, serving
from support.scripted_engine import Json, Script

CHAT, RESPONSES, MESSAGES, COMPLETIONS = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"
USER: Json = {"messages": [{"role": "user", "content": "Please tell me the room of Gonil."}]}
ANTHROPIC: Json = {**USER, "max_tokens": 64}
SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
PNG = "iVBORw0KGgo="


def after(*turns: Json) -> Json:
    """A chat in which these turns came before."""
    return {"messages": [{"role": "user", "content": "a"}, *turns, {"role": "user", "content": "c"}]}


async def send(url: str, path: str, body: Any, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
    data = body if isinstance(body, bytes) else json.dumps({"model": "cappella/tools", **body}).encode()
    head = {"Content-Type": "application/json", **{name.replace("_", "-"): each for name, each in headers.items()}}
    async with aiohttp.ClientSession() as http, http.post(url + path, data=data, headers=head) as reply:
        return reply.status, await reply.json(content_type=None), reply.headers


ASSISTANT = {"role": "assistant", "content": "b"}
DUMPED = {**ASSISTANT, "refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": None}
CALL = {"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "r"}
NULLS = {"n": None, "stream": None, "logprobs": None}
THINKING = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "context_management": {"edits": []}}
TAKEN: list[tuple[str, str, Json]] = [
    ("2 prompt_cache_options", RESPONSES, {"input": "hi", "truncation": "disabled", "prompt_cache_options": {"mode": "implicit"}}),
    ("4 prompt_cache_key", CHAT, {**USER, "prompt_cache_key": "s1"}),
    ("4 prompt_cache_key, model", CHAT, {**USER, "model": "ann", "prompt_cache_key": "s1"}),
    ("5 store, metadata", CHAT, {**USER, "store": False, "metadata": {"session": "1"}}),
    ("5 tiers", CHAT, {**USER, "service_tier": "auto", "safety_identifier": "u1", "verbosity": "medium", "logit_bias": {}}),
    ("6 two limits", CHAT, {**USER, "max_tokens": 64, "max_completion_tokens": 64}),
    ("7 no tools", CHAT, {**USER, "tools": [], "tool_choice": "auto"}),
    ("7 choice alone", CHAT, {**USER, "tool_choice": "none"}),
    ("7 parallel alone", CHAT, {**USER, "parallel_tool_calls": False}),
    ("7 no tools, model", CHAT, {**USER, "model": "ann", "tools": [], "tool_choice": "auto"}),
    ("8 reasoning_content", CHAT, after({**ASSISTANT, "reasoning_content": ""})),
    ("9 dumped", CHAT, after(DUMPED)),
    ("9 no calls", CHAT, after({**ASSISTANT, "tool_calls": []})),
    ("9 index", CHAT, after({"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT)),
    ("9 ids", CHAT, after({**ASSISTANT, "id": "msg_1"})),
    ("10 nulls", CHAT, {**USER, **NULLS, "stream_options": {"include_usage": None}}),
    ("10 usage", CHAT, {**USER, "stream_options": {"include_usage": True, "continuous_usage_stats": False}}),
    ("11 stops", CHAT, {**USER, "stop": [str(n) for n in range(9)]}),
    ("12 cache_control", MESSAGES, {
        "max_tokens": 64,
        "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "scope": "global"}}]}],
    }),
    ("13 thinking", MESSAGES, {**ANTHROPIC, **THINKING, "tools": [
        {"name": "a", "input_schema": {"type": "object"}, "defer_loading": True}]}),
    ("13 thinking, model", MESSAGES, {**ANTHROPIC, **THINKING, "model": "ann"}),
    ("20 image in a result", MESSAGES, {"max_tokens": 9, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "ok"}]}]},
    ]}),
    ("22 output items", RESPONSES, {"input": [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
        {"type": "message", "role": "assistant", "phase": "x", "content": [{"type": "output_text", "text": "Hello!", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "r"}]},
        {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
        {"role": "user", "content": "b"},
    ]}),
    ("codex", RESPONSES, {"input": "hi", "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "store": False,
        "client_metadata": {"a": "b"}, "reasoning": {"summary": "auto"}, "text": {"verbosity": "medium"}, "background": False,
        "previous_response_id": None, "safety_identifier": "s", "service_tier": "auto", "stream": None}),
    ("nothing", CHAT, {**USER, "seed": -1, "top_logprobs": 0, "modalities": ["text"], "service_tier": "auto", "n": 1}),
    ("template", CHAT, {**USER, "chat_template_kwargs": {"enable_thinking": False}}),
    ("completions", COMPLETIONS, {"model": "ann", "prompt": "a", "store": False, "metadata": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
async def test_what_clients_send_of_themselves_is_taken_and_nothing_is_told(
    gateway: str, path: str, body: Json
) -> None:
    status, reply, headers = await send(gateway, path, body)
    assert status == 200, reply
    assert "x-cappella-ignored" not in headers
    assert "ignored" not in reply.get("fusion", {})


REFUSED: list[tuple[str, str, Json, str, str]] = [
    ("3 item_reference", RESPONSES, {"input": [{"type": "item_reference", "id": "rs_1"}, {"role": "user", "content": "b"}]},
     "input.0.type", "names what was stored"),
    ("5 logit_bias", CHAT, {**USER, "logit_bias": {"1": 5}}, "logit_bias", "call one model"),
    ("6 limits differ", CHAT, {**USER, "max_tokens": 3, "max_completion_tokens": 4}, "", "max_completion_tokens"),
    ("7 required", CHAT, {**USER, "tool_choice": "required"}, "", "tool_choice needs tools"),
    ("n", CHAT, {**USER, "n": 2}, "n", "one answer"),
    ("1 hosted and chosen", RESPONSES, {"input": "a", "tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
     "tool_choice.type", "function, custom"),
    ("21 last turn", CHAT, {"messages": [*USER["messages"], {"role": "assistant", "content": "1, 2,"}]}, "messages", "not continue"),
    ("image", CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}]},
     "messages.0.content.0.image_url.url", "as data"),
    ("image string", CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://x/a.png"}]}]},
     "messages.0.content.0.image_url", "as data"),
    ("image, model", CHAT, {"model": "ann", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}]}, "messages.0.content.0.image_url.url", "as data"),
    ("image source", MESSAGES, {"max_tokens": 9, "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}]}]}, "messages.0.content.0.source.type", "as data"),
    ("audio part", CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
     "messages.0.content.0.type", "text, image_url"),
    ("file part", CHAT, {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
     "messages.0.content.0.type", "text, image_url"),
    ("text is a number", MESSAGES, {"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
     "messages.0.content.0.text", "string"),
    ("content is a number", CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "string or a valid list"),
    ("output is a number", RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": 3}]},
     "input.0.output", "string or a valid list"),
    ("typo", CHAT, {**USER, "fusion": {"strateggy": "vote"}}, "fusion.strateggy", "did you mean strategy"),
    ("alike", CHAT, {**USER, "fusion": {"agreement": {"by": "embedding"}}}, "fusion.agreement", "needs alike"),
    ("plugin typo", CHAT, {**USER, "plugins": [{"id": "fusion", "analysis_modles": []}]}, "plugins.0.analysis_modles",
     "did you mean analysis_models"),
    ("template", CHAT, {**USER, "chat_template_kwargs": {"chat_template": "{{ x }}"}},
     "chat_template_kwargs.chat_template", "may not be set"),
    ("template, model", CHAT, {**USER, "model": "ann", "chat_template": "{{ x }}"}, "chat_template", "own chat template"),
    ("fusion, model", CHAT, {**USER, "model": "ann", "fusion": {"samples": 2}}, "fusion", "for ensembles"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "param", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_what_would_change_the_answer_is_refused_at_its_place_with_what_to_do(
    gateway: str, path: str, body: Json, param: str, words: str
) -> None:
    status, reply, _ = await send(gateway, path, body)
    assert (status, reply["error"]["param"] or "") == (400, param), reply
    assert words in reply["error"]["message"]
    assert param in reply["error"]["message"]


async def test_all_fields_that_are_wrong_are_named_up_to_ten(gateway: str) -> None:
    turns = [{"role": "user", "content": n} for n in range(12)]
    _, reply, _ = await send(gateway, CHAT, {"messages": turns, "temperature": 3, "n": 2, "fusion": {"strateggy": 1}})
    message = reply["error"]["message"]
    assert message.startswith("n: ")
    assert message.count("; messages.") == 7
    assert message.endswith("; and 5 more")


async def test_a_place_is_named_as_the_client_counts_though_tools_were_dropped(gateway: str) -> None:
    tools = [{"type": "web_search"}, {"type": "function", "function": {"name": "a b"}}]
    _, reply, _ = await send(gateway, CHAT, {**USER, "tools": tools})
    assert reply["error"]["param"] == "tools.1.function.name"


UNKNOWN = {
    "next_years_field": {"a": 1},
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "mood": 1}]}],
}


async def test_an_unknown_field_is_ignored_told_and_counted(gateway: str, fake_engines: FakeEngines) -> None:
    status, reply, headers = await send(gateway, CHAT, UNKNOWN)
    assert (status, reply["fusion"]["ignored"]) == (200, ["next_years_field", "messages.content.mood"])
    assert headers["x-cappella-ignored"] == "next_years_field, messages.content.mood"
    _, _, headers = await send(gateway, CHAT, {**UNKNOWN, "model": "ann"})
    assert headers["x-cappella-ignored"] == "next_years_field, messages.content.mood"
    for server in fake_engines.servers.values():
        assert "next_years_field" not in str(server.bodies)
        assert "mood" not in str(server.bodies)
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/metrics") as page:
        assert 'cappella_ignored_fields_total{path="/v1/chat/completions"} 4.0' in await page.text()


async def test_each_unknown_name_is_logged_once_if_it_looks_like_one(
    gateway: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await send(gateway, CHAT, {**USER, "next_years_field": 1, "bad\nname, x": 2})
    lines = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
    assert [line.split(" is ")[0] for line in lines] == [
        f"{CHAT}: the field {name}" for name in ("next_years_field", "(not shown)")
    ]


async def test_tools_that_are_hosted_elsewhere_are_dropped_and_told(gateway: str, fake_engines: FakeEngines) -> None:
    spaces = {"type": "namespace", "name": "codex", "description": "x", "tools": [
        {"type": "function", "name": "shell", "parameters": SCHEMA}]}  # fmt: skip
    tools = [spaces, {"type": "web_search"}, {"type": "custom", "name": "apply_patch"}]
    status, reply, _ = await send(gateway, RESPONSES, {"input": "Say OK", "tools": tools})
    assert (status, reply["fusion"]["ignored"]) == (200, ["tools.web_search"])
    given = fake_engines.servers["ann"].bodies[-1]["tools"]
    assert [tool["function"]["name"] for tool in given] == ["codex__shell", "apply_patch"]
    assert given[1]["function"]["parameters"]["required"] == ["input"]


CALLS = (("codex__shell", '{"a": 1}'), ("apply_patch", '{"input": "*** Begin"}'))


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_come_back_as_the_client_named_its_tools(
    gateway: str, fake_engines: FakeEngines, stream: bool
) -> None:
    fake_engines.let("judge", judge_script(Script((), calls=CALLS, finish_reason="tool_calls")))
    spaces = {
        "type": "namespace",
        "name": "codex",
        "tools": [{"type": "function", "name": "shell", "parameters": SCHEMA}],
    }
    body = {"model": "cappella/tools", "input": "x", "tools": [spaces, {"type": "custom", "name": "apply_patch"}]}
    fusion = {"include_events": False}
    async with (
        aiohttp.ClientSession() as http,
        http.post(gateway + RESPONSES, json={**body, "stream": stream, "fusion": fusion}) as reply,
    ):
        text = await reply.text()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")] if stream else []
    response = events[-1]["response"] if stream else json.loads(text)
    shell, patch = response["output"]
    assert (shell["type"], shell["namespace"], shell["name"], shell["arguments"]) == (
        "function_call",
        "codex",
        "shell",
        '{"a": 1}',
    )
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "apply_patch", "*** Begin")
    if stream:
        assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == [shell, patch]
        assert [event["input"] for event in events if event["type"] == "response.custom_tool_call_input.done"] == [
            "*** Begin"
        ]


async def test_reasoning_content_is_read_as_reasoning(gateway: str, fake_engines: FakeEngines) -> None:
    await send(gateway, CHAT, after({**ASSISTANT, "reasoning_content": "hm"}))
    assert fake_engines.servers["ann"].bodies[-1]["messages"][1]["reasoning"] == "hm"


async def test_a_system_turn_in_the_middle_stays_in_its_place(gateway: str, fake_engines: FakeEngines) -> None:
    turn = {"role": "system", "content": [{"type": "text", "text": "5000 tokens left"}]}
    status, _, _ = await send(gateway, MESSAGES, {"max_tokens": 9, "messages": [*USER["messages"], turn]})
    said = fake_engines.servers["ann"].bodies[-1]["messages"]
    assert (status, said[1]) == (200, {"role": "system", "content": "5000 tokens left"})


async def test_a_billing_line_is_no_part_of_the_prompt(gateway: str, fake_engines: FakeEngines) -> None:
    system = [{"type": "text", "text": f"x-anthropic-billing-header: a; cch={5}"}, {"type": "text", "text": "Be kind."}]
    await send(gateway, MESSAGES, {**ANTHROPIC, "system": system})
    assert fake_engines.servers["ann"].bodies[-1]["messages"][0] == {"role": "system", "content": "Be kind."}


async def test_half_a_character_becomes_a_replacement_character(gateway: str, fake_engines: FakeEngines) -> None:
    told = r'"a \ud83d b \ude00 \ud83d\ude00 \\ud83d"'
    for model in ("ann", "cappella/tools"):
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": {told}}}]}}'
        status, _, _ = await send(gateway, CHAT, body.encode())
        assert status == 200
        said = fake_engines.servers["ann"].bodies[-1]["messages"][0]["content"]
        assert said == "a \ufffd b \ufffd \U0001f600 \\ud83d"


async def test_words_for_the_template_reach_members_and_judge(gateway: str, fake_engines: FakeEngines) -> None:
    words = {"enable_thinking": False}
    await send(gateway, CHAT, {**USER, "model": "cappella/default", "chat_template_kwargs": words})
    for server in fake_engines.servers.values():
        assert server.bodies
        assert all(body["chat_template_kwargs"] == words for body in server.bodies)


@pytest.mark.parametrize(
    ("wanted", "effort"),
    [
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999, "display": "omitted"}}, "high"),
        (THINKING, "high"),
        ({"output_config": {"effort": "max"}}, "xhigh"),
        ({"thinking": {"type": "adaptive"}}, None),
    ],
)
async def test_thinking_is_an_effort(gateway: str, fake_engines: FakeEngines, wanted: Json, effort: str | None) -> None:
    fake_engines.engines["ann"].capabilities = Capabilities(reasoning=True)
    status, reply, _ = await send(gateway, MESSAGES, {**ANTHROPIC, **wanted})
    assert status == 200, reply
    assert fake_engines.servers["ann"].bodies[-1].get("reasoning_effort") == effort


PACKED: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize("encoding", PACKED)
async def test_a_compressed_body_is_read_within_the_limit(gateway: str, encoding: str) -> None:
    body = json.dumps({"model": "cappella/tools", **USER}).encode()
    assert (await send(gateway, CHAT, PACKED[encoding](body), Content_Encoding=encoding))[0] == 200
    bomb = PACKED[encoding](json.dumps({"model": "x" * (4 << 20)}).encode())
    assert (await send(gateway, CHAT, bomb, Content_Encoding=encoding))[0] == 413
    status, reply, _ = await send(gateway, CHAT, PACKED[encoding](body)[:-9] + b"?", Content_Encoding=encoding)
    assert (status, reply["error"]["code"]) == (400, "invalid_json")


async def test_an_encoding_that_is_not_known_is_415(gateway: str) -> None:
    status, reply, _ = await send(gateway, CHAT, b"x", Content_Encoding="br")
    assert (status, reply["error"]["code"]) == (415, "unsupported_media_type")
    assert "zstd" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("path", "more", "told"),
    [
        (CHAT, {**USER, "reasoning_effort": "low"}, "reasoning_effort"),
        (CHAT, {**USER, "reasoning": {"effort": "low"}}, "reasoning"),
        (CHAT, {**USER, "fusion": {"reasoning": {"effort": "low"}}}, "fusion.reasoning"),
        (RESPONSES, {"input": "hi", "reasoning": {"effort": "low"}}, "reasoning.effort"),
        (MESSAGES, {**ANTHROPIC, "thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        (MESSAGES, {**ANTHROPIC, "output_config": {"effort": "high"}}, "output_config.effort"),
    ],
)
async def test_an_effort_where_no_model_thinks_is_told_by_the_name_that_was_sent(
    fake_engines: FakeEngines, path: str, more: Json, told: str
) -> None:
    config = gateway_config()
    models = {name: model.model_copy(update={"reasoning_parser": None}) for name, model in config.models.items()}
    async with serving(fake_engines, config.model_copy(update={"models": models})) as url:
        status, reply, headers = await send(url, path, {"model": "cappella/default", **more})
    assert (status, headers["x-cappella-ignored"], reply["fusion"]["ignored"]) == (200, told, [told])
