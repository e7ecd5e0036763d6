"""An engine process from its first breath to its first token."""

import asyncio
import time
from contextlib import suppress

from cappella.engines.base import EngineServer
from cappella.engines.process.process import EngineProcess
from cappella.engines.start_times import Countdown
from cappella.errors import EngineBroke, EngineError

LOOK_INTERVAL_S = 0.1
START_TIMEOUT_S = 1800.0
FIRST_TOKEN_TIMEOUT_S = 300.0


async def load(engine: EngineServer, process: EngineProcess, countdown: Countdown) -> None:
    """Until a first token has come back; the status shows how far it is. Raises EngineBroke with the reason."""
    showing = asyncio.create_task(_show(engine, process, countdown))
    try:
        await _until_it_answers(engine, process)
        await _first_token(engine)
    finally:
        showing.cancel()
        await asyncio.wait({showing})
        engine.status.remaining_s = None


async def _show(engine: EngineServer, process: EngineProcess, countdown: Countdown) -> None:
    """Until cancelled, or until an operator has put the engine to sleep."""
    status = engine.status
    while status.state != "stopped":
        # Somebody may have taken the log away.
        with suppress(OSError):
            status.stage, status.progress = process.stage()
            status.remaining_s = countdown.left_s(status.stage)
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _until_it_answers(engine: EngineServer, process: EngineProcess) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while not await _answers(engine):
        if not process.running:
            raise EngineBroke(f"it did not start: {process.reason()}")
        if time.monotonic() > give_up_at:
            raise EngineBroke(f"it did not start within {START_TIMEOUT_S:g} s")
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _answers(engine: EngineServer) -> bool:
    try:
        return await engine.healthy()
    except EngineError:
        return False


async def _first_token(engine: EngineServer) -> None:
    try:
        async with asyncio.timeout(FIRST_TOKEN_TIMEOUT_S):
            await engine.probe()
    except TimeoutError as error:
        raise EngineBroke(f"it gave no first token within {FIRST_TOKEN_TIMEOUT_S:g} s") from error
