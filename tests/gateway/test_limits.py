"""Requests that would cost an engine much, and a client nothing to write."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cappella.config import Config
from cappella.config.limits import Limits
from cappella.config.load import load
from cappella.errors import ConfigError, RequestError
from cappella.gateway.limits import require_within_limits
from cappella.gateway.validation import checked_json
from support.fake_engines import FakeEngines, gateway_config, serving

SMALL = {
    "models": {"ann": {"weights": "w", "max_model_len": 64}},
    "ensembles": {"one": {"panel": ["ann"], "judge": "ann"}},
}
DEEP: Any = {}
for _ in range(20):
    DEEP = {"properties": {"a": DEEP}}
CHAIN = {f"a{i}": {"properties": {"x": {"$ref": f"#/$defs/a{i + 1}"}}} for i in range(100)}
REFERRED = {"$defs": {"a": {"maxItems": 5000}}, "prefixItems": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}
HUGE = {"type": "array", "minItems": 1_000_000_000}
WIDE: Any = {"properties": {f"p{i}": {} for i in range(401)}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
BOTTOMLESS: Any = []
for _ in range(5000):
    BOTTOMLESS = [BOTTOMLESS]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("messages", [{"role": "user", "content": "x"}] * 2049, "messages may have at most 2048 entries"),
        ("n", 17, "n may have at most 16 answers"),
        ("stop", ["x"] * 17, "stop may have at most 16 entries"),
        ("stop", "x" * 257, "stop may have at most 256 characters each"),
        ("structured_outputs", {"regex": "a" * 2049}, "structured_outputs may have a regex of at most 2048"),
        ("structured_outputs", {"choice": ["a"] * 1025}, "structured_outputs may have at most 1024 entries"),
        ("response_format", {"json_schema": {"schema": DEEP}}, "response_format may have a schema at most 32 deep"),
        ("tools", [{"function": {"parameters": {"enum": ["x" * 70_000]}}}], "a schema of at most 65536 bytes"),
        ("metadata", BOTTOMLESS, "nested deeper than 64"),
        ("metadata", [[1]] * 50_001, "more than 100000 values"),
        ("stop_token_ids", ["x"] * 100_001, "more than 100000 values"),
        ("documents", [1] * 2049, "documents may have at most 2048 entries"),
        ("response_format", {"json_schema": {"schema": HUGE}}, "arrays of at most 10000 items"),
        ("response_format", {"json_schema": {"schema": {"allOf": [REFERRED, HUGE]}}}, "at most 10000 items"),
        ("response_format", {"json_schema": {"schema": REFERRED}}, "at most 10000 items"),
        ("structured_outputs", {"json": json.dumps({"items": {"maxItems": 1e9}})}, "at most 10000 items"),
        ("structured_outputs", {"structural_tag": json.dumps({"schema": HUGE})}, "at most 10000 items"),
        ("tools", [{"function": {"parameters": {"maxItems": 6000}}}] * 2, "at most 10000 items"),
        ("tools", [{"parameters": {"prefixItems": [{}] * 10001}}], "at most 10000 items"),
        ("tools", [{"input_schema": {"$ref": "#/$defs/a0", "$defs": CHAIN}}], "128 deep with its references followed"),
        ("tools", [{"function": {"parameters": {"description": "x" * 60_000}}}] * 9, "at most 524288 bytes"),
        ("text", {"format": {"schema": HUGE}}, "at most 10000 items"),
        ("text", {"format": {"schema": WIDE}}, "objects of at most 400 properties"),
        ("text", {"format": {"schema": {"allOf": [{"pattern": "a"}] * 257}}}, "at most 256 patterns"),
        ("structured_outputs", {"choice": ["x" * 3000 + str(i) for i in range(100)]}, "choices of at most 65536 bytes"),
        ("messages", [{"role": "user", "content": [{"type": "text", "text": "x"}] * 4097}], "at most 4096 parts"),
        ("messages", [{"role": "user", "content": [PICTURE] * 65}], "at most 64 images"),
        ("input", [{"content": [{"type": "tool_result", "content": [{"image": 1}] * 65}]}], "at most 64 images"),
        ("top_k", 2**70, "numbers of at most 9223372036854775807"),
        ("stop_token_ids", [1, -(2**64)], "numbers of at most"),
        ("fusion", {"max_total_tokens": 2**63}, "numbers of at most"),
    ],
)
def test_a_value_over_its_limit_is_refused_with_field_and_limit(field: str, value: Any, says: str) -> None:
    # As it comes: large integers are floats.
    parsed = value if value is BOTTOMLESS else orjson.loads(json.dumps(value))
    with pytest.raises(RequestError, match=says) as caught:
        require_within_limits({"model": "m", field: parsed})
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("names", [{"$ref": "part"}, {"$ref": "#part"}, {"$ref": "http://here/part"}])
def test_a_reference_by_name_is_followed(names: dict[str, str]) -> None:
    named = {"$id": "http://here/part", "$anchor": "part", "maxItems": 6000}
    schema = {"$defs": {"a": named}, "properties": {"one": names}}
    with pytest.raises(RequestError, match="at most 10000 items"):
        require_within_limits({"model": "m", "structured_outputs": {"json": schema}})


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"properties": {"below": {"type": "array", "maxItems": 100, "items": {"$ref": "#"}}}}
    require_within_limits({"model": "m", "structured_outputs": {"json": tree}})


def test_the_operator_sets_the_limits() -> None:
    limits = Config.model_validate({**SMALL, "server": {"limits": {"messages": 2}}}).server.limits
    with pytest.raises(RequestError, match=r"at most 2 entries \(server.limits.messages\)"):
        require_within_limits({"model": "m", "messages": [{}] * 3}, limits)


def test_an_unknown_limit_is_an_error_that_names_it(tmp_path: Path) -> None:
    (file := tmp_path / "c.yaml").write_text(json.dumps({**SMALL, "server": {"limits": {"mesages": 2}}}))
    with pytest.raises(ConfigError, match=r"server\.limits\.mesages: unknown key. Did you mean messages"):
        load(file)


async def test_a_gateway_takes_the_limits_of_its_config(fake_engines: FakeEngines) -> None:
    config = gateway_config()
    server = config.server.model_copy(update={"limits": Limits(messages=2, answers=4)})
    body: dict[str, Any] = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}] * 3}
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        aiohttp.ClientSession() as http,
    ):
        for more, param in (
            ({}, "messages"),
            ({"messages": body["messages"][:1], "fusion": {"layers": 2}}, "fusion.layers"),
        ):
            async with http.post(f"{url}/v1/chat/completions", json=body | more) as reply:
                error = (await reply.json())["error"]
            assert (reply.status, error["code"], error["param"]) == (400, "too_large", param)


def test_an_ordinary_request_is_within_the_limits() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string", "pattern": "a+"}}}}
    require_within_limits(
        {"messages": [], "n": 4, "stop": ["\n"], "response_format": {"json_schema": {"schema": schema}}}
    )


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_ensembles_and_models_have_the_same_limits(gateway: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stop": "x" * 300}
    async with aiohttp.ClientSession() as http, http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
        assert reply.status == 400
        assert (await reply.json())["error"]["code"] == "too_large"


def test_a_body_of_many_objects_is_refused_before_it_is_parsed_and_one_of_many_brackets_is_not() -> None:
    limits = Limits(values=1000)
    with pytest.raises(RequestError, match="more than 1000 values"):
        checked_json(b'{"x": [' + b"[{}]," * 600 + b"not JSON at all", limits)
    text = json.dumps({"model": "m", "messages": [{"role": "user", "content": '["{\\' * 2000}]}).encode()
    assert checked_json(text, limits)[1] == text


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_a_text_without_an_end_is_read_once(end: bytes) -> None:
    body = b'{"a":' + b"[" * 100_001 + b'"' + b'\\"' * 200_000 + end
    with pytest.raises(RequestError, match="more than 100000 values"):
        checked_json(body, Limits())


def test_a_list_of_token_ids_to_detokenize_is_no_list_of_values() -> None:
    body = {"model": "ann", "tokens": list(range(110_000))}
    require_within_limits(body)
    with pytest.raises(RequestError, match="more than 100000 values"):
        require_within_limits({"model": "ann", "tokens": ["x"] * 110_000})
