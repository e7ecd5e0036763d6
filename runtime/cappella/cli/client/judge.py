"""Asks a server for judgements, of one question or of a file's, and shows what came of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cappella.cli.client import answer_file
from cappella.cli.client import judge_file as questions
from cappella.cli.client.address import base_url
from cappella.cli.client.text import safe
from cappella.evaluation.progress import Pace, showing
from cappella.evaluation.server import Server, Unanswered, session
from cappella.vocabulary import Json

PATH = "/v1/judge"
WAY = "judging"


async def judge_one(target: str, key: str | None, body: Json, as_json: bool) -> None:
    """Print the judgement: as tables, or as JSON. Raises CappellaError."""
    async with _server(target, key) as server:
        reply, _ = await server.post(PATH, body)
    if as_json:
        print(json.dumps(reply, indent=2, ensure_ascii=False))
    else:
        _show(reply, Console(highlight=False))


async def judge_file(target: str, key: str | None, common: Json, path: Path, out: Path, at_once: int) -> int:
    """Judge what `out` does not have yet; returns how many were refused. Raises ConfigError before anything is asked."""
    rows = questions.read(path, common)
    console, pace = Console(stderr=True, highlight=False), Pace(at_once)
    with answer_file.opened(out, rows) as (left, write):
        console.print(f"{len(rows)} questions, {len(rows) - len(left)} of them judged already", soft_wrap=True)
        pace.plan(WAY, len(left))
        async with _server(target, key) as server:
            with showing(console, pace) as tell:
                refused = await _judge_all(server, left, at_once, write, pace, tell)
    more = f" ({refused} refused: each has its error there)" if refused else ""
    console.print(f"Written: {out}{more}", soft_wrap=True)
    return refused


async def _judge_all(
    server: Server,
    rows: Sequence[answer_file.Row],
    at_once: int,
    write: answer_file.Write,
    pace: Pace,
    tell: Callable[[str], None],
) -> int:
    """Judge and write each row; returns how many were refused. The first error that no other row would survive ends all."""
    refused, waiting = 0, iter(rows)

    async def work() -> None:
        nonlocal refused
        for row in waiting:
            seconds: float | None = None
            try:
                reply, seconds = await server.post(PATH, row.body)
            except Unanswered as error:
                reply, refused = {"error": str(error)}, refused + 1
            write(row, reply)
            pace.finish(WAY, seconds)
            tell(WAY)

    workers = [asyncio.create_task(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return refused


@asynccontextmanager
async def _server(target: str, key: str | None) -> AsyncIterator[Server]:
    """The server at an address, or one of a config, which ends with the context."""
    async with session() as http:
        if "://" in target or not target.endswith((".yaml", ".yml")):
            yield Server(http, base_url(target), key)
            return
        # Only here: vLLM's settings come with it.
        from cappella.bench import servers
        from cappella.engines.supervisor import default_log_dir

        log_dir = default_log_dir("judge")
        Console(stderr=True, highlight=False).print(f"Starting the engines of {target} (logs in {log_dir})")
        async with servers.gateway(Path(target), log_dir / "cappella") as url:
            yield Server(http, url, key)


def _show(reply: Json, console: Console) -> None:
    """What there is of the judgement, a table for each part, then what it cost."""
    if "ranking" in reply:
        _table(console, "rank model value", [(e["rank"], e["model"], e["value"]) for e in reply["ranking"]])
    if "scores" in reply:
        scores = [
            (each["model"], part["criterion"], f"{part['points']}/{part['of']}", part["reason"])
            for each in reply["scores"]
            for part in each["criteria"]
        ]
        _table(console, "model criterion points reason", scores)
    if "preferences" in reply:
        pairs = [(*each["models"], each["preferred"] or "tie", each["probability"]) for each in reply["preferences"]]
        _table(console, "first second preferred p(first)", pairs)
    if bias := reply.get("position_bias"):
        places = ", ".join(f"{each['letter']} {each['probability']}" for each in bias["places"])
        console.print(f"mean probability by place: {places}", soft_wrap=True)
    if reply.get("analysis"):
        console.print(safe(json.dumps(reply["analysis"], indent=1, ensure_ascii=False)), markup=False, soft_wrap=True)
    for each in reply.get("missing", ()):
        told = f"missing: {each['part']} of {', '.join(each['models'])}: {each['error']}"
        console.print(safe(told), markup=False, soft_wrap=True)
    spent = reply["usage"]
    seconds = reply["timings"]["total_ms"] / 1000
    told = f"{len(spent['fusion_details'])} calls · {spent['total_tokens']} tokens · {seconds:.1f} s · {reply['id']}"
    console.print(
        f"{reply['status']} · judge {reply['judge_model']} · {told}", style="dim", markup=False, soft_wrap=True
    )


def _table(console: Console, columns: str, rows: Sequence[Sequence[object]]) -> None:
    table = Table(*columns.split(), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(safe(str(each))) for each in row))
    console.print(table)
