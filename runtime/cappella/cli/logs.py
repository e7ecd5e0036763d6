"""`cappella logs`: the log of an engine, as it grows if wanted."""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cappella.cli.errors import one_line_errors
from cappella.engines import log_rotation
from cappella.errors import ConfigError

POLL_S = 0.25


def logs(
    model: Annotated[str | None, typer.Argument(help="A model; without it, all that have a log are listed.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="So many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows, until Ctrl-C.")] = False,
    earlier: Annotated[
        int, typer.Option(min=0, max=log_rotation.MAX_ROTATED, help="The log of so many starts before this one.")
    ] = 0,
    port: Annotated[int, typer.Option(help="The server's port, by which its folder of logs is found.")] = 8000,
    log_dir: Annotated[Path | None, typer.Option(help="The folder, if the server was given one.")] = None,
) -> None:
    """Show the end of an engine's log: its start, its errors, its figures. It quotes no request."""
    from cappella.engines.supervisor import default_log_dir

    folder = log_dir or default_log_dir(str(port))
    with one_line_errors():
        if model is None:
            print("\n".join(_models(folder)))
            return
        log = log_rotation.newest_first(folder / f"{model}.log")[earlier]
        _require(log, folder)
        for text in _followed(log, lines) if follow else _end_of(log, lines):
            print(text, end="", flush=follow)


def _models(folder: Path) -> list[str]:
    found = sorted(path.stem for path in folder.glob("*.log") if ".previous" not in path.name)
    if not found:
        raise ConfigError(f"log folder {folder}", "there are no logs", "Name the server's --port, or its --log-dir")
    return found


def _require(log: Path, folder: Path) -> None:
    if log.is_file():
        return
    raise ConfigError(f"{log}", "there is no such log", f"There are logs of {', '.join(_models(folder))}")


def _end_of(log: Path, lines: int) -> Iterator[str]:
    with log.open(encoding="utf-8", errors="replace") as file:
        yield from deque(file, lines)


def _followed(log: Path, lines: int) -> Iterator[str]:
    """The last lines, then each new one: of the next launch, too, and after the log was cut short."""
    file = log.open("rb")
    shown = b""
    try:
        for line in deque(file, lines):
            shown = line
            yield _text(line)
        while True:
            while line := file.readline():
                shown = line
                yield _text(line)
            time.sleep(POLL_S)
            if log.exists() and not os.path.samestat(log.stat(), os.fstat(file.fileno())):
                # What the last launch wrote in between, such as why it ended.
                yield _text(file.read())
                file.close()
                file = log.open("rb")
            elif file.tell() > os.fstat(file.fileno()).st_size:
                _skip_shown(file, shown)
                print("(the older half of the log was cut off)", file=sys.stderr)
    finally:
        file.close()


def _skip_shown(file: BinaryIO, shown: bytes) -> None:
    """Go behind the line that was shown last, or to the beginning where it is no more."""
    file.seek(0)
    before, found, _ = file.read().rpartition(shown)
    file.seek(len(before) + len(found))


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
