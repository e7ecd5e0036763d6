"""Compares the strategies on the same held-out questions: accuracy, tokens and seconds."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from statistics import mean, median
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from demo.score import ENSEMBLE, TIMEOUT_S, Server, is_right, text_of
from demo.world import Question, held_out_questions

# Name of the row: the requested model, and the `fusion` object of the request.
ROWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "one model (alto)": ("alto", {}),
    "synthesize": (ENSEMBLE, {"analysis": "off"}),
    "synthesize, analysis before": (ENSEMBLE, {"analysis": "before"}),
    "synthesize, analysis alongside": (ENSEMBLE, {"analysis": "alongside"}),
    "synthesize, early exit": (ENSEMBLE, {"analysis": "off", "early_exit": "equal"}),
    "synthesize, order of arrival": (ENSEMBLE, {"analysis": "off", "answer_order": "arrival"}),
    "synthesize, review": (ENSEMBLE, {"analysis": "off", "review": True}),
    "synthesize, alto 3 times": (
        ENSEMBLE,
        {"analysis": "off", "analysis_models": ["alto"], "samples": 3, "temperature": 0.8},
    ),
    "select": (ENSEMBLE, {"strategy": "select"}),
    "select, order of arrival": (ENSEMBLE, {"strategy": "select", "answer_order": "arrival"}),
    "select, debias": (ENSEMBLE, {"strategy": "select", "debias": True}),
    "vote": (ENSEMBLE, {"strategy": "vote"}),
    "preset quick": (ENSEMBLE, {"preset": "quick"}),
}


async def compare(url: str, count: int) -> list[dict[str, Any]]:
    """One entry per row: `accuracy` from 0 to 1, mean `tokens` and median `seconds` of a run, `degraded` runs.

    `shown_first` counts the member at label A, `chosen_at` the chosen labels: together they show position bias.
    """
    questions = held_out_questions(count)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        server = Server(http, url)
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("strategies", total=len(ROWS))
            rows = []
            for name in ROWS:
                rows.append(await _row(server, name, questions))
                progress.advance(bar)
    return rows


async def _row(server: Server, name: str, questions: list[Question]) -> dict[str, Any]:
    clock = asyncio.get_running_loop().time
    # As many as `Server.ask` sends at once, so that waiting for a slot is not timed.
    slots = asyncio.Semaphore(server.concurrency)

    async def one(question: Question) -> tuple[dict[str, Any], float]:
        model, fusion = ROWS[name]
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question.text}]}
        body |= {"fusion": fusion} if fusion else {"temperature": 0, "max_tokens": 200}
        async with slots:
            began = clock()
            return await server.ask(body), clock() - began

    results = await asyncio.gather(*(one(question) for question in questions))
    replies = [reply for reply, _ in results]
    right = [is_right(text_of(reply), question) for reply, question in zip(replies, questions, strict=True)]
    traces = [reply["fusion"] for reply in replies if "fusion" in reply]
    return {
        "strategy": name,
        "n": len(questions),
        "accuracy": round(mean(right), 4),
        "tokens": round(mean(_cost_tokens(reply) for reply in replies if reply)),
        "seconds": round(median(seconds for _, seconds in results), 3),
        "shown_first": Counter(trace["labels"]["A"] for trace in traces if trace["labels"]),
        "chosen_at": Counter(
            letter for trace in traces for letter, name in trace["labels"].items() if name == trace.get("chosen")
        ),
        "degraded": sum(reply.get("fusion", {}).get("status") == "degraded" for reply in replies),
        "failed": sum(not reply for reply in replies),
    }


def _cost_tokens(reply: Mapping[str, Any]) -> int:
    """Those of all calls; a single model's reply has no `fusion`."""
    return int(reply.get("fusion", reply)["usage"]["total_tokens"])


def main(url: str, count: int, as_json: bool) -> None:
    rows = asyncio.run(compare(url.rstrip("/"), count))
    if not as_json:
        table = Table("strategy", "right", "tokens per run", "seconds per run", "degraded", "failed")
        for row in rows:
            shown = [f"{row['accuracy']:.1%}", row["tokens"], f"{row['seconds']:.2f}", row["degraded"], row["failed"]]
            table.add_row(row["strategy"], *map(str, shown))
        Console(width=100).print(table)
    print(json.dumps(rows))
