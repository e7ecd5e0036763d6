"""`cappella audit`: check that an audit log was not changed."""

from pathlib import Path
from typing import Annotated

import typer

from cappella.cli.errors import App, one_line_errors
from cappella.telemetry.audit.chain import GENESIS

app = App(help="Check the log that server.audit of a config writes.")


@app.callback()
def main() -> None:
    """Check the log that server.audit of a config writes."""


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="The log and its rotated files.")],
    expect: Annotated[str | None, typer.Option(help="A hash noted earlier that one of the lines must have.")] = None,
    after: Annotated[str, typer.Option(help="Hash of the last line before these files.")] = GENESIS,
) -> None:
    """Check that no line was changed, removed, added or moved. The error names the first that was; the exit code is 1.

    Only --expect detects lines cut off at the end, or a rewritten log: keep the last hash elsewhere.
    """
    from cappella.telemetry.audit.verify import verify as verify_files

    with one_line_errors():
        log = verify_files(files, after, expect)
    summary = [f"{log.lines} lines, {log.first_time} to {log.last_time}"]
    summary += [f"{log.repaired} torn by a crash and repaired"] if log.repaired else []
    summary += [f"{log.lost} lost because the disk was full"] if log.lost else []
    summary += [f"{log.continued} times the file was removed, moved or replaced"] if log.continued else []
    print("; ".join(summary))
    print(f"last hash {log.last_hash}")
