"""`cappella judge`: answers that come from elsewhere, one question or a file of them."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cappella.cli.ask import ServerKey
from cappella.cli.client.address import DEFAULT_URL
from cappella.cli.errors import one_line_errors
from cappella.errors import ConfigError
from cappella.vocabulary import Json

FILE = typer.Argument(help="Lines of JSON, each with prompt or messages and answers, and if wanted an id.")
SERVER = typer.Option(envvar="CAPPELLA_URL", help="Address of a server, or the YAML of a deployment, which is started.")


def judge(
    file: Annotated[Path | None, FILE] = None,
    prompt: Annotated[str | None, typer.Option(help="The one question to judge answers to.")] = None,
    answer: Annotated[list[str] | None, typer.Option(help="An answer to it. Repeatable.")] = None,
    server: Annotated[str, SERVER] = DEFAULT_URL,
    ensemble: Annotated[str | None, typer.Option(help="The ensemble whose judge judges (default: default).")] = None,
    model: Annotated[str | None, typer.Option(help="Or the model that judges.")] = None,
    criteria: Annotated[str | None, typer.Option(help="What the judge weighs first.")] = None,
    want: Annotated[
        str | None, typer.Option(help="analysis, scores, ranking, preference, comma-separated (scores,ranking).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File of JSON lines for the judgements.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions in flight at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the judgement of the one question as JSON.")] = False,
    key: ServerKey = None,
) -> None:
    """Have a judge score, rank and compare answers that come from elsewhere: to one question, or to each in a file.

    Each line of a file is judged and written on its own: the same command goes on where it stopped. Exit code 1 if some were refused.
    """
    from cappella.cli.client import judge as client

    with one_line_errors():
        common = _common(ensemble, model, criteria, want)
        if file is None:
            if prompt is None or not answer or out is not None:
                problem = "one question needs --prompt and --answer, and a file of them goes to -o"
                raise ConfigError(
                    "judge", problem, "Write cappella judge --prompt Q --answer A, or FILE.jsonl -o OUT.jsonl"
                )
            body = {**common, "prompt": prompt, "answers": answer}
            asyncio.run(client.judge_one(server, key, body, as_json))
            return
        if prompt is not None or answer or out is None or as_json:
            problem = "a file has questions and answers of its own, and its judgements go to -o"
            raise ConfigError("judge", problem, "Write cappella judge FILE.jsonl -o OUT.jsonl")
        refused = asyncio.run(client.judge_file(server, key, common, file, out, concurrency))
        if refused:
            raise typer.Exit(1)


def _common(ensemble: str | None, model: str | None, criteria: str | None, want: str | None) -> Json:
    """The fields that hold for every question."""
    if ensemble and model:
        raise ConfigError("--ensemble, --model", "both say who judges", "Use one of them")
    who = {"model": model} if model else {"ensemble": ensemble or "default"}
    wanted = [each.strip() for each in want.split(",")] if want else None
    return {**who, **({"criteria": criteria} if criteria else {}), **({"want": wanted} if wanted else {})}
