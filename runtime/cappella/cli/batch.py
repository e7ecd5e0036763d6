"""`cappella batch`: a file of rows through an ensemble or a model, by the server's batch API."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cappella.cli.ask import ServerKey
from cappella.cli.client.address import DEFAULT_URL
from cappella.cli.completion import DEFAULT_MODEL
from cappella.cli.errors import one_line_errors
from cappella.errors import ConfigError

FILE = typer.Argument(
    help="JSON lines (prompt or messages, and if wanted id), rows of OpenAI's batch API, CSV, or Parquet."
)
OUT = typer.Option(
    "--out", "-o", help="File of the answers: JSON lines, or .csv or .parquet for the input's columns with an answer."
)
SERVER = typer.Option(envvar="CAPPELLA_URL", help="Address of a server, or the YAML of a deployment, which is started.")


def batch(
    file: Annotated[Path, FILE],
    out: Annotated[Path, OUT],
    model: Annotated[str, typer.Option(help="An ensemble or a single model.")] = DEFAULT_MODEL,
    prompt: Annotated[
        str | None, typer.Option(help='What is asked of each row, with its columns: "Summarise: {text}".')
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt of each row; may have columns, too.")] = None,
    schema: Annotated[Path | None, typer.Option(help="JSON schema that each answer is to follow.")] = None,
    body: Annotated[
        str | None, typer.Option(help='More fields of each request, as JSON: {"max_completion_tokens": 300}.')
    ] = None,
    judge_only: Annotated[
        bool, typer.Option("--judge-only", help="Ask only the judge, of the answers that each row has in `answers`.")
    ] = False,
    server: Annotated[str, SERVER] = DEFAULT_URL,
    window: Annotated[str, typer.Option(help="The time that the batch may take, such as 24h or 7d.")] = "24h",
    whole: Annotated[bool, typer.Option("--whole", help="Write the server's whole replies, with traces.")] = False,
    accept_new_weights: Annotated[
        bool,
        typer.Option("--accept-new-weights", help="Go on though the server has other weights than at the beginning."),
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel what runs for this -o, instead of asking.")] = False,
    key: ServerKey = None,
) -> None:
    """Put a file of rows through an ensemble, model by model at full speed. Online requests go first.

    The same command goes on where it stopped, also after Ctrl-C: the server works on. Rows that failed are asked again by
    the next call. Exit code 1 if some failed.
    """
    from cappella.cli.client import batch as client
    from cappella.cli.client.batch_rows import Asking

    with one_line_errors():
        asking = Asking(model, prompt, system, _fields(schema, body), judge_only)
        job = client.Job(file, out, server, key, asking, window, whole, accept_new_weights)
        if cancel:
            print(f"Cancelled: {asyncio.run(client.cancel(job))}")
        elif asyncio.run(client.run(job)):
            raise typer.Exit(1)


def _fields(schema: Path | None, body: str | None) -> dict[str, Any]:
    """The fields that every request has. Raises ConfigError."""
    fields = _object("--body", body) if body else {}
    if schema is None:
        return fields
    if "response_format" in fields:
        raise ConfigError("--schema", "and --body both say response_format", "Leave one of them out")
    try:
        written = schema.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--schema {schema}", f"cannot be read ({error})", "Give a file with a JSON schema"
        ) from error
    form = {"name": "answer", "strict": True, "schema": _object(f"--schema {schema}", written)}
    return {**fields, "response_format": {"type": "json_schema", "json_schema": form}}


def _object(place: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(place, f"is no JSON ({error})", 'Write an object: {"temperature": 0}') from error
    if not isinstance(value, dict):
        raise ConfigError(place, "is no JSON object", 'Write an object: {"temperature": 0}')
    return value
