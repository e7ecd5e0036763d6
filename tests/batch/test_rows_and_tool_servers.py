"""Rows of batches whose tool servers are exchanged by a reload, or have not started yet: none is answered without its tools."""

from pathlib import Path
from typing import Any

import pytest

from cappella.config import CommandTool, Config
from cappella.gateway import reload
from support.batch_gateway import answering, batch_config, ends
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Json, Script
from support.stored_batches import body, stored_batch
from support.tool_server import command, serves

CALL = Script((), calls=(("echo", '{"text": "Hello."}'),), finish_reason="tool_calls")


def config(folder: Path, way: str) -> Config:
    """The small server, which misbehaves in a way, is ann's; a row of hers ends when she has read what it gave."""
    panel = [{"model": "ann", "tools": ["small"]}, "bob", "cat"]
    tool = CommandTool(command=tuple(command(way)))
    return batch_config(folder, panel=panel, quorum=3).model_copy(update={"tools": {"small": tool}})


def results(asked: Json) -> list[Any]:
    return [message["content"] for message in asked["messages"] if message["role"] == "tool"]


def answered(asked: Json) -> Script:
    return Script(("Read.",)) if results(asked) else CALL


async def test_a_row_whose_tool_server_a_reload_ends_is_answered_with_the_new_one(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "LINGER_S", 0.0)
    fake_engines.let("ann", answered)
    async with answering(fake_engines, config(tmp_path, "deaf"), lambda: config(tmp_path, "")) as store:
        old = fake_engines.reloader.state.tool_servers["small"]
        await serves(old)
        batch = await stored_batch(store, [body()])
        assert await eventually(lambda: old.calls == 1)
        await fake_engines.reloader.reload()
        replies, _ = await ends(store, batch)
        assert await eventually(lambda: old.problem == "it is stopped")
    read = [each for asked in fake_engines.servers["ann"].bodies for each in results(asked)]
    assert len(read) == len(replies) == 1
    assert "Hello." in str(read)


async def test_a_row_waits_for_a_tool_server_that_has_not_started_yet(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    fake_engines.let("ann", answered)
    async with answering(fake_engines, config(tmp_path, str(tmp_path / "greets"))) as store:
        batch = await stored_batch(store, [body(), body(model="bob")])
        # The second row begins after the first.
        assert await eventually(lambda: bool(fake_engines.servers["bob"].bodies))
        assert fake_engines.servers["ann"].bodies == []
        (tmp_path / "greets").touch()
        replies, _ = await ends(store, batch)
    assert len(replies) == 2
    assert "Hello." in str(results(fake_engines.servers["ann"].bodies[-1]))
