"""`cappella audit`: whether the audit log is as it was written."""

from pathlib import Path
from typing import Annotated

import typer

from cappella.cli.errors import one_line_errors
from cappella.telemetry.audit.chain import GENESIS

app = typer.Typer(no_args_is_help=True, help="Check the log that server.audit of a config asks for.")


@app.callback()
def main() -> None:
    """Check the log that server.audit of a config asks for."""


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="The log, and the files of it that were put aside.")],
    expect: Annotated[str | None, typer.Option(help="A hash noted earlier, which some line must have.")] = None,
    after: Annotated[str, typer.Option(help="The hash of the last line before these files.")] = GENESIS,
) -> None:
    """Check that no line was changed, taken out, put in or moved; exit code 1 names the first that does not fit.

    Lines cut off at the end, or a log written anew, show by --expect alone: note the last hash somewhere else.
    """
    from cappella.telemetry.audit.verify import verify as verify_files

    with one_line_errors():
        found = verify_files(files, after, expect)
    told = [f"{found.lines} lines, {found.first_time} to {found.last_time}"]
    told += [f"{found.mended} broken off by a crash and mended"] if found.mended else []
    told += [f"{found.lost} lost for want of room"] if found.lost else []
    print("; ".join(told))
    print(f"last hash {found.last_hash}")
