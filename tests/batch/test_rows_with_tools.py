"""Rows of a batch whose members call tools."""

import asyncio
from collections.abc import Mapping
from typing import Any

from cappella.batch.engines import RecordedEngine, RowCalls
from cappella.batch.phases import Host, Phases
from cappella.batch.progress import Meter
from cappella.batch.runs import RowPipeline
from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.run import Run
from cappella.types import Prompt, Sampling
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Json, Script
from support.small_tools import SmallTools, adding

CALL = Script((), calls=(("add", '{"q": "2+3"}'),), finish_reason="tool_calls")


def script(body: Json) -> Script:
    return Script(("Five.",)) if any(message["role"] == "tool" for message in body["messages"]) else CALL


async def row(
    fake_engines: FakeEngines, stored: Mapping[bytes, bytes], box: SmallTools, of_batch: Meter | None = None
) -> tuple[Run, dict[bytes, bytes]]:
    """The run of one row, and the calls that were stored."""
    kept: dict[bytes, bytes] = {}

    async def keep(key: bytes, value: bytes) -> None:
        kept[key] = value

    engines: dict[str, Any] = dict(fake_engines.engines)
    phases = Phases({name: Host(engine, lambda: 4) for name, engine in engines.items()}, 1.0)
    with (of_batch or Meter()).row(dict.fromkeys(engines)) as meter:
        calls = RowCalls(phases, 1, stored, keep, meter)
        recorded = {name: RecordedEngine(name, name, engine, calls) for name, engine in engines.items()}
        panel = tuple(Seat(name, name, Sampling(temperature=0.7), tools=SeatTools(("box",))) for name in ("ann", "bob"))
        pipeline = RowPipeline(recorded, calls, b"secret", {"box": box})
        prompt = Prompt([{"role": "user", "content": "2+3?"}])
        return await pipeline.run(prompt, fake_engines.settings(panel=panel), lambda event: None), kept


async def test_a_row_that_is_made_again_asks_no_engine_again_and_its_tools_anew(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", script)
    first, again = adding(), adding()
    run, kept = await row(fake_engines, {}, first)
    asked = {name: len(server.bodies) for name, server in fake_engines.servers.items()}
    assert asked == {"ann": 2, "bob": 1, "cat": 0, "judge": 2}
    same, new = await row(fake_engines, kept, again)
    assert {name: len(server.bodies) for name, server in fake_engines.servers.items()} == asked
    assert (same.content, new) == (run.content, {})
    assert first.asked == again.asked == [("add", {"q": "2+3"})]


async def test_a_batch_tells_which_tools_its_rows_wait_for(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", script)
    box, meter = adding(), Meter()
    box.problem = "it is starting"
    answering = asyncio.create_task(row(fake_engines, {}, box, meter))
    assert await eventually(lambda: "box" in (meter.starting or ""))
    box.problem = None
    await answering
    assert meter.starting is None
