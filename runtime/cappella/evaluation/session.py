"""`cappella eval`: reads the questions, starts or finds the server, asks, and writes the report."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cappella.bench import servers
from cappella.config import Config, load, paths
from cappella.engines.supervisor import default_log_dir
from cappella.errors import ConfigError
from cappella.evaluation import data, findings, judging, page, proposal, report, scorers, server, ways
from cappella.evaluation.asking import Asking, Plan
from cappella.evaluation.ensemble import Ensemble, from_config, from_server
from cappella.evaluation.outcomes import Results
from cappella.evaluation.progress import Pace, showing
from cappella.evaluation.store import Store
from cappella.evaluation.verdict import verdict
from cappella.tools.sandbox import Sandbox
from cappella.types import Json

console = Console(stderr=True, highlight=False)
WIDE = 260


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of whom. `best` is the best member, if known beforehand; `at_once` questions are in flight."""

    ensemble: str = "default"
    ways: str = ways.DEFAULT
    leave_out: bool = False
    samples: int | None = None
    best: str | None = None
    at_once: int = 4


@dataclass(frozen=True, slots=True)
class Scoring:
    """How answers are scored; models' code runs unconfined with `unsafe_code` only."""

    scorer: str = scorers.AUTO
    rubric_judge: str | None = None
    unsafe_code: bool = False


@dataclass(frozen=True, slots=True)
class Files:
    """Where answers, figures, the report and a config are written; `fresh` forgets the answers that are there."""

    store: Path | None = None
    fresh: bool = False
    json: Path | None = None
    html: Path | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. Of `config` and `url` one is set, or both: then the server at `url` serves that config."""

    config: Path | None
    url: str | None
    key: str | None
    data: Sequence[str]
    limit: int | None
    asked: Asked
    scoring: Scoring
    files: Files


def evaluate(options: Options) -> None:
    """Ask, print, write the files. Raises ConfigError before anything starts, and CappellaError if there is no answer."""
    if options.scoring.scorer not in (scorers.AUTO, *scorers.NAMES):
        known = ", ".join((scorers.AUTO, *scorers.NAMES))
        raise ConfigError("--scorer", f"{options.scoring.scorer!r} is no scorer", f"Use one of {known}")
    questions = data.load(options.data, options.limit)
    scorers.check(questions, options.scoring.scorer)
    asyncio.run(_evaluate(options, questions))


async def _evaluate(options: Options, questions: Sequence[data.Question]) -> None:
    config = load.load(options.config) if options.config else None
    if config is not None:
        # Mistakes are told before the engines start.
        _plan(options, questions, _ensemble(options, config, {}, ""))
    sandbox = await _sandbox(options, questions)
    store = Store(options.files.store or _store_of(options), options.files.fresh)
    try:
        async with server.session() as http, _address(options) as url:
            client = server.Server(http, url, options.key)
            models = await client.models()
            plan = _plan(options, questions, _ensemble(options, config, models, url))
            pace = Pace(plan.at_once)
            with showing(console, pace) as tell:
                results = await Asking(plan, client, store, sandbox, pace, tell).all()
    finally:
        store.close()
    _conclude(options, plan, results, sandbox, _remote(models, url))


def _conclude(options: Options, plan: Plan, results: Results, sandbox: Sandbox | None, remote: Json) -> None:
    found = findings.find(results)
    turned, choices = judging.turned(results, found), judging.choices(results)
    about = _about(options, plan, results, sandbox)
    made = report.Report(about, verdict(found), found, turned, choices, _each(results, found))
    if options.files.json:
        report.write(options.files.json, report.json_text(made))
    if options.files.html:
        report.write(options.files.html, page.page(made))
    problem = None
    try:
        if options.files.config:
            proposal.propose(made, results, plan.ensemble, options.config, remote, options.files.config)
    except ConfigError as error:
        problem = error
    # After the files, as a pipe may be closed, and whatever became of the proposal.
    report.show(made, Console(highlight=False, width=None if console.is_terminal else WIDE))
    for path in filter(None, (options.files.json, options.files.html, None if problem else options.files.config)):
        console.print(f"Written: {path}", soft_wrap=True)
    if problem:
        raise problem


def _ensemble(options: Options, config: Config | None, models: Mapping[str, Json], url: str) -> Ensemble:
    if config is not None:
        return from_config(config, options.asked.ensemble, options.scoring.rubric_judge)
    return from_server(models, options.asked.ensemble, url, options.scoring.rubric_judge)


def _plan(options: Options, questions: Sequence[data.Question], ensemble: Ensemble) -> Plan:
    """Raises ConfigError for a way or a member that the ensemble does not have."""
    runs, judge_alone = ways.read(options.asked.ways, ensemble, options.asked.leave_out)
    if options.asked.leave_out and (why := ways.why_all_stay(ensemble)):
        console.print(f"--leave-one-out leaves nobody out: {why}.", soft_wrap=True)
    names = [member.name for member in ensemble.members]
    if options.asked.best is not None and options.asked.best not in names:
        raise ConfigError("--best", f"there is no member {options.asked.best!r}", f"Use one of {', '.join(names)}")
    judge = options.scoring.rubric_judge or ensemble.judge
    return Plan(
        questions,
        ensemble,
        runs,
        judge_alone,
        options.scoring.scorer,
        judge,
        options.asked.samples,
        options.asked.best,
        options.asked.at_once,
    )


async def _sandbox(options: Options, questions: Sequence[data.Question]) -> Sandbox | None:
    if not any(scorers.chosen_for(question, options.scoring.scorer) == "python" for question in questions):
        return None
    return await Sandbox.opened(options.scoring.unsafe_code)


@asynccontextmanager
async def _address(options: Options) -> AsyncIterator[str]:
    """The address of the server, which is started if none is named."""
    if options.url is not None:
        yield options.url
        return
    assert options.config
    log_dir = default_log_dir("eval")
    console.print(f"Starting the engines of {options.config} (logs in {log_dir})", soft_wrap=True)
    async with servers.gateway(options.config, log_dir / "cappella") as url:
        yield url


def _store_of(options: Options) -> Path:
    """Beside the JSON file, or in the user's cache."""
    return options.files.json.with_suffix(".answers") if options.files.json else paths.cache_dir() / "eval.answers"


def _remote(models: Mapping[str, Json], url: str) -> Json:
    """The server's models, as another config names them."""
    single = {name: each for name, each in models.items() if "panel" not in each and "alias_of" not in each}
    return {
        name: {"url": f"{url}/v1", "api": "vllm", "max_model_len": each.get("max_model_len") or 4096}
        for name, each in single.items()
    }


def _each(results: Results, found: findings.Findings) -> list[Json]:
    """Each question with the ways that were right; null is no answer."""
    return [
        {
            "id": question.id,
            "category": question.category,
            "contested": results.contested[i],
            "right": {name: None if (each := row[i]) is None else each.right for name, row in found.rows.items()},
        }
        for i, question in enumerate(results.questions)
    ]


def _about(options: Options, plan: Plan, results: Results, sandbox: Sandbox | None) -> dict[str, str]:
    chosen = (
        f"{options.asked.best}, named beforehand"
        if options.asked.best
        else "for each half of the questions, the member that did best on the other half"
    )
    used = sorted({scorers.chosen_for(question, options.scoring.scorer) for question in plan.questions})
    facts = {
        "questions": f"{len(plan.questions)} of {', '.join(options.data)}",
        "ensemble": f"{plan.ensemble.called}: {', '.join(results.names)}; judge {plan.ensemble.judge}",
        "scorer": ", ".join(used),
        "best member": f"{chosen}: {', '.join(dict.fromkeys(results.best))}",
        "samples": f"{max(map(len, results.samples), default=0)} of the best member for each question",
        "tokens": "read and written by all calls, those of the panel included",
        "seconds": f"with {plan.at_once} questions at once; a panel takes as long as its slowest member",
        "intervals": "95%, by 2,000 samples of the questions; p by McNemar's exact test, by Holm for several ways",
        "contested": "questions to which the members gave different values; where values cannot be read, not all right or wrong",
    }
    return facts | ({"sandbox": sandbox.name} if sandbox else {})
