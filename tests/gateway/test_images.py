"""Images from the one allowed folder, and from nowhere else."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.types import Capabilities
from support.fake_engines import FakeEngines, gateway_config, serving

PNG = b"\x89PNG\r\n\x1a\n and so on"
INSIDE = "data:image/png;base64," + b64encode(PNG).decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "images").mkdir()
    (folder / "a cat.png").write_bytes(PNG)
    (folder / "page.png").write_text("<html>")
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


@pytest.fixture
async def url(fake_engines: FakeEngines, folder: Path) -> AsyncIterator[str]:
    config = gateway_config()
    server = config.server.model_copy(update={"image_folder": folder, "max_body_bytes": 2000})
    for engine in fake_engines.engines.values():
        engine.capabilities = Capabilities(images=True)
    models = {name: model.model_copy(update={"images": True}) for name, model in config.models.items()}
    async with serving(fake_engines, config.model_copy(update={"server": server, "models": models})) as url:
        yield url


async def ask(url: str, model: str, address: str, count: int = 1) -> tuple[int, Any]:
    part = {"type": "image_url", "image_url": {"url": address}}
    content = [{"type": "text", "text": "What is this?"}, *([part] * count)]
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return reply.status, json.loads(await reply.read())


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_an_image_in_the_folder_reaches_the_model_as_data(
    fake_engines: FakeEngines, url: str, folder: Path, model: str
) -> None:
    status, _ = await ask(url, model, f"file://{folder}/a%20cat.png")
    assert status == 200
    assert fake_engines.servers["ann"].bodies[0]["messages"][-1]["content"][1]["image_url"]["url"] == INSIDE


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
@pytest.mark.parametrize(
    "name", ["../secret.png", "%2e%2e/secret.png", "link.png", "page.png", "missing.png", "", "a\x00.png", "x" * 1500]
)
async def test_what_is_not_an_image_in_the_folder_is_refused_in_the_same_words(
    fake_engines: FakeEngines, url: str, folder: Path, model: str, name: str
) -> None:
    status, reply = await ask(url, model, f"file://{folder}/{name}")
    assert (status, reply["error"]["param"]) == (400, "messages")
    assert "no image in the folder" in reply["error"]["message"]
    assert not fake_engines.servers["ann"].bodies


async def test_images_may_not_make_a_request_larger_than_it_may_be(
    fake_engines: FakeEngines, url: str, folder: Path
) -> None:
    (folder / "large.png").write_bytes(PNG + bytes(1200))
    assert (await ask(url, "ann", f"file://{folder}/large.png"))[0] == 200
    status, reply = await ask(url, "ann", f"file://{folder}/large.png", count=2)
    assert (status, reply["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_without_a_folder_no_file_is_read(gateway: str, folder: Path, model: str) -> None:
    status, reply = await ask(gateway, model, f"file://{folder}/a%20cat.png")
    assert (status, reply["error"]["type"]) == (400, "invalid_request_error")


PICTURE = "iVBORw0KGgo="
ADDRESS = f"data:image/png;base64,{PICTURE}"
LOOKED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
WITH_RESULTS: dict[str, Any] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": None, "tool_calls": [LOOKED]},
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": [{"type": "text", "text": "Here:"}, {"type": "image_url", "image_url": {"url": ADDRESS}}],
            },
        ]
    },
    "/v1/messages": {
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [
                            {"type": "text", "text": "Here:"},
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": PICTURE},
                            },
                        ],
                    }
                ],
            },
        ],
    },
    "/v1/responses": {
        "input": [
            {"role": "user", "content": "Look."},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [{"type": "input_text", "text": "Here:"}, {"type": "input_image", "image_url": ADDRESS}],
            },
        ]
    },
}


@pytest.mark.parametrize("path", WITH_RESULTS)
async def test_an_image_in_a_tools_result_reaches_the_models_that_see_images_as_a_users(
    fake_engines: FakeEngines, url: str, path: str
) -> None:
    body = {"model": "cappella/default", **WITH_RESULTS[path]}
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body) as reply:
        assert reply.status == 200, await reply.text()
    for name in ("ann", "judge"):
        said = fake_engines.servers[name].bodies[0]["messages"]
        assert [turn["role"] for turn in said][:4] == ["user", "assistant", "tool", "user"]
        assert said[2]["content"].split("\n") == ["Here:", "[image, shown below]"]
        assert said[3]["content"][0]["image_url"]["url"] == ADDRESS
