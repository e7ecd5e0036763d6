"""What is remembered of an engine's last failure, and whether it would only fail again."""

import time
from dataclasses import replace
from pathlib import Path

from cappella.engines import crash_reason, log_files
from cappella.engines.process.process import EngineProcess
from cappella.engines.status import EngineStatus, Failure
from cappella.engines.vllm.startup_log import CONFIG_STAGES

EXIT_CODE_COMES_S = 0.3


def remember(status: EngineStatus, reason: str, process: EngineProcess | None) -> None:
    """Also after the engine has recovered."""
    status.last_failure = Failure(time.time(), reason, str(process.log) if process else None)


def follow_log(status: EngineStatus, log: Path) -> None:
    """To be called when a new life has moved the logs of those before."""
    failure = status.last_failure
    if failure and failure.log:
        moved = log_files.rotated(Path(failure.log), log)
        status.last_failure = replace(failure, log=str(moved) if moved else None)


def is_mistake(status: EngineStatus, reason: str, process: EngineProcess | None) -> bool:
    """Whether it ended by itself with the same words as the last time, before it touched anything but its config."""
    last = status.last_failure
    if process is None or last is None or last.reason != reason or crash_reason.may_pass(reason):
        return False
    # Without an error in the log nobody knows why: a full disk takes no log.
    exited = process.exit_code is not None and process.exit_code > 0 and process.logged_error
    return exited and process.startup.stage[0] in CONFIG_STAGES


async def cause_of_end(process: EngineProcess, cause: str) -> str:
    """A server that was killed does not answer, and its exit code comes a moment later."""
    await process.wait(EXIT_CODE_COMES_S)
    if not process.running and process.exit_code is not None and process.exit_code < 0:
        return f"its process ended: {await process.reason()}"
    error = await process.error()
    return f"{cause}: {error}" if error else cause
