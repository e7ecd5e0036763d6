"""Requests that would cost an engine much, and a client nothing to write."""

from typing import Any

import aiohttp
import pytest

from cappella.errors import RequestError
from cappella.gateway.limits import require_within_limits

DEEP: Any = {}
for _ in range(20):
    DEEP = {"properties": {"a": DEEP}}
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
    ],
)
def test_a_value_over_its_limit_is_refused_with_field_and_limit(field: str, value: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        require_within_limits({"model": "m", field: value})
    assert caught.value.code == "too_large"


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
