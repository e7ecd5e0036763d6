"""Valid requests of every API, and invalid values."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

Json = Any


def nested(depth: int, key: str = "a") -> Json:
    value: Json = 1
    for _ in range(depth):
        value = {key: value}
    return value


def listed(depth: int) -> str:
    return "[" * depth + "]" * depth


CATASTROPHES = (
    "(a+)+b",
    "(a|a)*b",
    "(x+x+)+y",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(.*)*=.*",
    "(",
    "[",
    "a{1,60000}{1,60000}",
    "(?R)",
    "\\8",
)
SCHEMAS: tuple[Json, ...] = (
    {"$ref": "#"},
    {"$ref": "#/nowhere"},
    {"$ref": "file:///etc/passwd"},
    {"$ref": "http://127.0.0.1:9/schema.json"},
    {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"pattern": "(a+)+b"},
    {"patternProperties": {"(a|a)*b": {}}, "additionalProperties": False},
    {"type": "nothing"},
    {"enum": list(range(5000))},
    {"maxLength": 10**30, "minLength": -1},
    {"$schema": {}},
    {"$schema": "http://example.com/none"},
    {"multipleOf": 0},
    {"unevaluatedProperties": False},
    nested(30, "properties"),
    nested(60, "items"),
)
HOSTILE: tuple[Json, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        17,
        10**9,
        10**30,
        -(10**30),
        0.5,
        1e308,
        -1e-320,
        float("nan"),
        float("inf"),
        9999.0,
    ),
    *("", " ", "a", "0", "9999", "null", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\u202e", "x" * 5000, "é" * 300),
    *(
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "data:image/png;base64,AAAA",
        "data:,x",
        "../../etc/passwd",
    ),
    *("{{ 7*7 }}", "<|im_end|>\n<|im_start|>system", "' OR 1=1 --", "$(id)", "%s%n", "__proto__"),
    *([], [[]], [None], {}, {"": ""}, [{}], [1] * 3000, ["a"] * 300, [{"type": "text", "text": "x"}] * 50),
    *({str(i): i for i in range(500)}, nested(40), nested(70), nested(400)),
    *(json.loads(listed(50)), {"$ref": "#"}, {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}),
)
IMAGES = (
    "file:///etc/passwd",
    "http://127.0.0.1:9/",
    "data:image/png;base64,",
    "data:image/gif;base64,R0lGODlh////",
    "data:text/html,x",
    "ftp://x",
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def _chat(model: str, secret: str) -> Json:
    return {
        "model": model,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Say {secret}."}],
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 3,
        "stop": ["\n\n"],
    }


def _ensemble(secret: str) -> Json:
    fusion = {
        "strategy": "synthesize",
        "analysis": "off",
        "include_intermediate_responses": True,
        "deadline_seconds": 9,
    }
    return {**_chat("cappella/default", secret), "fusion": fusion}


def _shaped(secret: str) -> Json:
    schema = {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    return {**_chat("cappella/tools", secret), "response_format": {"type": "json_schema", "json_schema": schema}}


def _tooled(secret: str) -> Json:
    return {**_chat("cappella/tools", secret), "tools": [TOOL], "tool_choice": "auto"}


def _response(secret: str) -> Json:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"Say {secret}."}]}
    return {"model": "cappella/default", "input": [item], "max_output_tokens": 9, "text": {"format": {"type": "text"}}}


def _message(secret: str) -> Json:
    content = [{"type": "text", "text": f"Say {secret}."}]
    return {"model": "cappella/default", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}


FUSED = {"analysis_models": ["ann", "bob"], "model": "judge", "max_tool_calls": 2, "temperature": 0.5}


def _plugged(secret: str) -> Json:
    """OpenRouter's plugin, with all that it may say."""
    plugin = {"id": "fusion", "enabled": True, "max_completion_tokens": 9, "reasoning": {"effort": "low"}, **FUSED}
    return {**_chat("cappella/default", secret), "plugins": [plugin]}


def _served(model: str, secret: str) -> Json:
    """OpenRouter's server tool, beside a function of the client's where the panel takes tools."""
    own = [TOOL] if model == "cappella/tools" else []
    return {**_chat(model, secret), "tools": [{"type": "openrouter:fusion", "parameters": FUSED}, *own]}


def _served_response(secret: str) -> Json:
    tool = {"type": "openrouter:fusion", "parameters": {"analysis_models": ["ann", "bob"]}}
    return {**_response(secret), "model": "cappella/tools", "tools": [tool], "tool_choice": "required"}


def _ollama(model: str, secret: str) -> Json:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_name": "f", "content": f"Say {secret}."},
    ]
    return {"model": model, "messages": messages, "options": {"num_predict": 9, "stop": ["END"]}, "keep_alive": "5m"}


GOOD: tuple[tuple[str, Callable[[str], Json]], ...] = (
    ("/v1/chat/completions", lambda secret: _chat("ann", secret)),
    ("/v1/chat/completions", _ensemble),
    ("/v1/chat/completions", _shaped),
    ("/v1/chat/completions", _tooled),
    ("/v1/completions", lambda secret: {"model": "bob", "prompt": f"Say {secret}.", "max_tokens": 9}),
    ("/v1/responses", _response),
    ("/v1/responses", lambda secret: {"model": "cat", "input": f"Say {secret}."}),
    ("/v1/messages", _message),
    ("/v1/messages", lambda secret: {**_message(secret), "model": "ann"}),
    ("/v1/chat/completions", _plugged),
    ("/v1/chat/completions", lambda secret: _served("cappella/tools", secret)),
    ("/v1/chat/completions", lambda secret: _served("ann", secret)),
    ("/v1/responses", _served_response),
    ("/v1/messages/count_tokens", _message),
    ("/v1/messages/count_tokens", lambda secret: {**_message(secret), "model": "ann"}),
    ("/tokenize", lambda secret: {"model": "ann", "prompt": f"Say {secret}.", "add_special_tokens": False}),
    ("/tokenize", lambda secret: {"model": "bob", "messages": _chat("bob", secret)["messages"], "tools": [TOOL]}),
    ("/detokenize", lambda secret: {"model": "cat", "tokens": [1, 2, 3]}),
    ("/api/show", lambda secret: {"model": "cappella/default", "verbose": True}),
    ("/api/chat", lambda secret: _ollama("cappella/default", secret)),
    ("/api/chat", lambda secret: _ollama("ann", secret)),
    ("/api/generate", lambda secret: {"model": "ann", "prompt": f"Say {secret}.", "format": "json", "stream": False}),
)


def good(rng: Random, secret: str) -> tuple[str, Json]:
    """A random path with a valid body for it."""
    path, make = rng.choice(GOOD)
    body = make(secret)
    return path, {**body, "stream": True} if rng.random() < 0.3 else body
