"""What a direct call hands to vLLM is a list of ours: of the fields that the installed vLLM knows, no other gets there."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest

from cappella.gateway.formats.policy_models import MODELS
from support.fake_engines import FakeEngines
from support.scripted_engine import Json

USER: Json = {"messages": [{"role": "user", "content": "Hi"}]}
# The API's place in vLLM, the class of its requests, and the least that a request has.
APIS: dict[str, tuple[str, str, Json]] = {
    "/v1/chat/completions": ("openai/chat_completion", "ChatCompletionRequest", USER),
    "/v1/completions": ("openai/completion", "CompletionRequest", {"prompt": "Hi"}),
    "/v1/responses": ("openai/responses", "ResponsesRequest", {"input": "Hi"}),
    "/v1/messages": ("anthropic", "AnthropicMessagesRequest", {**USER, "max_tokens": 9}),
}
OURS = {"cache_salt", "model", "stream_options", "stream", "stream_interval", "max_tokens", "logprobs"}
"""What the gateway itself may add."""


def known_to_vllm(folder: str, name: str) -> Iterator[str]:
    """The fields of a request's class, from its source: an import of vLLM takes seconds."""
    spec = find_spec("vllm")
    assert spec
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "entrypoints", folder, "protocol.py").read_text()
    (found,) = (each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.ClassDef) and each.name == name)
    for line in found.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and not line.target.id.startswith("_"):
            yield line.target.id


@pytest.mark.parametrize("path", APIS)
async def test_a_field_that_is_not_on_the_list_does_not_reach_an_engine(
    gateway: str, fake_engines: FakeEngines, path: str
) -> None:
    folder, name, least = APIS[path]
    honoured = set(MODELS[path].honoured.split())
    others = set(known_to_vllm(folder, name)) - honoured
    assert len(others) > 5
    bodies = fake_engines.servers["ann"].bodies
    async with aiohttp.ClientSession() as http:
        for field in sorted(others - OURS):
            bodies.clear()
            async with http.post(gateway + path, json={"model": "ann", **least, field: "ours"}) as reply:
                text = await reply.text()
            assert (reply.status == 400 and field in text) or (reply.status == 200 and field not in bodies[0]), field
    assert all(set(body) <= honoured | OURS for body in bodies)


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template": "{{ messages }}"},
        {"chat_template_kwargs": {"chat_template": "{{ messages }}"}},
        {"cache_salt": "{{ messages }}"},
    ],
    ids=["chat_template", "chat_template_kwargs", "cache_salt"],
)
@pytest.mark.parametrize("path", APIS)
async def test_a_client_sets_neither_the_template_nor_the_salt_of_the_cache(
    gateway: str, fake_engines: FakeEngines, path: str, more: Json
) -> None:
    body = {"model": "ann", **APIS[path][2], **more}
    async with aiohttp.ClientSession() as http, http.post(gateway + path, json=body) as reply:
        assert reply.status in (200, 400)
    assert not [body for body in fake_engines.servers["ann"].bodies if "{{ messages }}" in str(body)]
