"""The failures in an engine's status: their causes, their logs, and whether a restart would only repeat the last one."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from cappella.engines import crash_reason, log_rotation
from cappella.engines.launcher import ServerProcess
from cappella.engines.status import EngineStatus, Failure

EXIT_CODE_TIMEOUT_S = 0.3


def record(status: EngineStatus, reason: str, process: ServerProcess | None) -> None:
    """Add a failure, which stays after the engine has recovered."""
    status.failures.append(Failure(time.time(), reason, str(process.log) if process else None))


def update_log_paths(status: EngineStatus, log: Path) -> None:
    """Call it once after each launch, which rotates the logs of the launches before."""
    for at, failure in enumerate(status.failures):
        if failure.log:
            rotated = log_rotation.path_after_rotation(Path(failure.log), log)
            status.failures[at] = replace(failure, log=str(rotated) if rotated else None)


async def is_config_error(
    status: EngineStatus, reason: str, process: ServerProcess | None, was_ready: bool = False
) -> bool:
    """Whether the process exited by itself while it read its config, and would do so again.

    It would where the server refuses its config in so many words, unless it `was_ready` with it before, and where the launch
    before ended with the same error.
    """
    if process is None or crash_reason.is_transient(reason):
        return False
    exited_by_itself = process.exit_code is not None and process.exit_code > 0
    if not exited_by_itself or not process.startup_log.stage.reads_config:
        return False
    if not was_ready and crash_reason.is_refusal(await asyncio.to_thread(process.log_excerpt)):
        return True
    if status.last_failure is None or status.last_failure.reason != reason:
        return False
    # Without an error in the log the cause is unknown: a full disk takes no log.
    return await process.logged_error() is not None


async def cause_of_death(process: ServerProcess, cause: str) -> str:
    """The cause that a health check saw, with the error from the log; or the signal that killed the process.

    A killed server stops answering a moment before its exit code is known.
    """
    await process.wait(EXIT_CODE_TIMEOUT_S)
    if not process.running and process.exit_code is not None and process.exit_code < 0:
        return f"process ended: {await process.exit_reason()}"
    error = await process.logged_error()
    return f"{cause}: {error}" if error else cause
