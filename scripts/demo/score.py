"""Score a running server on the held-out questions: each member, votes, the oracle, the judge alone, the ensemble."""

import asyncio
import json
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cappella.ensemble import prompts
from demo.world import MEMBERS, Question, held_out_questions

JUDGE = "conductor"
ENSEMBLE = "cappella/default"
CONCURRENCY = 16
TIMEOUT_S = 120.0

console = Console(stderr=True)


@dataclass
class QuestionResult:
    """One question with all answers to it; the answer of a failed request is empty."""

    question: Question
    members: Mapping[str, str]
    ensemble: str
    judge_alone: str
    without: dict[str, str] = field(default_factory=dict)
    mismatched: str = ""

    @property
    def vote(self) -> str:
        """The most frequent answer of the members; the first in a tie."""
        counts = Counter(normalise(text) for text in self.members.values())
        return counts.most_common(1)[0][0] if counts else ""

    @property
    def oracle(self) -> str:
        """A correct answer, if any member gave one."""
        return next((text for text in self.members.values() if is_right(text, self.question)), "")


class Server:
    """A client of the scored server's API."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.concurrency = CONCURRENCY
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self.errors: list[str] = []

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion, or {} and a line in `errors`."""
        async with self._slots:
            try:
                async with self._http.post(f"{self._url}/v1/chat/completions", json=body) as reply:
                    value: dict[str, Any] = await reply.json()
            except (aiohttp.ClientError, TimeoutError) as error:
                self.errors.append(repr(error))
                return {}
        if "error" in value:
            self.errors.append(value["error"]["message"])
            return {}
        return value


def normalise(text: str) -> str:
    """The words of a text in lower case, without punctuation."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer equals the expected one after normalisation."""
    return normalise(answer) == normalise(question.answer)


def text_of(reply: Mapping[str, Any]) -> str:
    return str(reply["choices"][0]["message"]["content"]) if reply else ""


async def score(url: str, count: int, ablate: bool) -> dict[str, Any]:
    """The figures that the last line of `scripts/score_demo` prints, and those of each group of questions."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        server = Server(http, url)
        results = await _all("panel and judge", [_asker(server, q) for q in held_out_questions(count)])
        if ablate:
            for member in MEMBERS:
                await _all(f"without {member}", [_remover(server, each, member) for each in results])
            others = derange(results, Random(5))
            pairs = zip(results, others, strict=True)
            await _all("answers to other questions", [_mismatcher(server, each, other) for each, other in pairs])
    for error in Counter(server.errors).most_common(5):
        console.print(f"failed {error[1]} times: {error[0]}", style="red")
    groups = {
        f"{n} part{'s' * (n > 1)}": [result for result in results if len(result.question.parts) == n] for n in (1, 2, 3)
    }
    rows = {name: figures(group, ablate=False) for name, group in groups.items() if group}
    total = figures(results, ablate)
    return {**total, "groups": {**rows, "all": total}}


def figures(results: Sequence[QuestionResult], ablate: bool) -> dict[str, Any]:
    """Accuracies from 0 to 1."""

    def share(answer: Callable[[QuestionResult], str]) -> float:
        return round(sum(is_right(answer(each), each.question) for each in results) / len(results), 4)

    def of_member(member: str) -> float:
        return share(lambda each: each.members.get(member, ""))

    result: dict[str, Any] = {
        "n": len(results),
        "members": {member: of_member(member) for member in MEMBERS},
        "vote": share(lambda each: each.vote),
        "oracle": share(lambda each: each.oracle),
        "judge_alone": share(lambda each: each.judge_alone),
        "ensemble": share(lambda each: each.ensemble),
    }
    if ablate:
        without = {f"without_{member}": share(_without(member)) for member in MEMBERS}
        result["ablation"] = {**without, "answers_to_other_questions": share(lambda each: each.mismatched)}
    return result


def _without(member: str) -> Callable[[QuestionResult], str]:
    return lambda each: each.without[member]


def table(by_parts: Mapping[str, dict[str, Any]]) -> Table:
    """A row per group of questions."""
    out = Table("questions", "n", *MEMBERS, "vote", "oracle", "judge alone", "ensemble")
    for name, row in by_parts.items():
        shares = [*row["members"].values(), row["vote"], row["oracle"], row["judge_alone"], row["ensemble"]]
        out.add_row(name, str(row["n"]), *(f"{share:.1%}" for share in shares))
    return out


def derange(results: Sequence[QuestionResult], rng: Random) -> list[QuestionResult]:
    """The results in a random order where none keeps its place."""
    order = list(range(len(results)))
    rng.shuffle(order)
    successor = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [results[successor[i]] for i in range(len(results))]


async def _all(title: str, jobs: Sequence[Callable[[], Awaitable[QuestionResult]]]) -> list[QuestionResult]:
    with Progress(console=console) as progress:
        bar = progress.add_task(title, total=len(jobs))

        async def one(job: Callable[[], Awaitable[QuestionResult]]) -> QuestionResult:
            result = await job()
            progress.advance(bar)
            return result

        return list(await asyncio.gather(*(one(job) for job in jobs)))


def _asker(server: Server, question: Question) -> Callable[[], Awaitable[QuestionResult]]:
    async def job() -> QuestionResult:
        fusion = {"include_intermediate_responses": True}
        reply, alone = await asyncio.gather(
            server.ask(_body(ENSEMBLE, question, fusion=fusion)),
            server.ask(_body(JUDGE, question, temperature=0, max_tokens=120)),
        )
        members = {each["model"]: each["content"] for each in reply["fusion"]["responses"]} if reply else {}
        return QuestionResult(question, members, text_of(reply), text_of(alone))

    return job


def _remover(server: Server, result: QuestionResult, member: str) -> Callable[[], Awaitable[QuestionResult]]:
    async def job() -> QuestionResult:
        fusion = {"analysis_models": [m for m in MEMBERS if m != member], "analysis": "off"}
        result.without[member] = text_of(await server.ask(_body(ENSEMBLE, result.question, fusion=fusion)))
        return result

    return job


def _mismatcher(
    server: Server, result: QuestionResult, other: QuestionResult
) -> Callable[[], Awaitable[QuestionResult]]:
    """Ask the judge this question with the panel's answers to another one."""

    async def job() -> QuestionResult:
        conversation = [{"role": "user", "content": result.question.text}]
        messages = prompts.final_messages(conversation, list(other.members.values()), secrets.token_hex(4))
        body = {"model": JUDGE, "messages": messages, "temperature": 0, "max_tokens": 120}
        result.mismatched = text_of(await server.ask(body))
        return result

    return job


def _body(model: str, question: Question, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question.text}], **more}


def main(url: str, count: int, as_json: bool, ablate: bool) -> None:
    result = asyncio.run(score(url.rstrip("/"), count, ablate))
    if not as_json:
        print_report(result)
    print(json.dumps({key: value for key, value in result.items() if key != "groups"}))


def print_report(result: Mapping[str, Any]) -> None:
    out = Console(width=100)
    out.print(table(result["groups"]))
    for name, share in result.get("ablation", {}).items():
        out.print(f"{name.replace('_', ' ')}: {share:.1%}")
