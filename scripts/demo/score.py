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
class EnsembleRequest:
    """One question with every answer to it; a failed request leaves an empty answer."""

    question: Question
    members: Mapping[str, str]
    ensemble: str
    judge_alone: str
    without: dict[str, str] = field(default_factory=dict)
    mismatched: str = ""

    @property
    def vote(self) -> str:
        """The most frequent answer of the members; of several, the first."""
        counts = Counter(normalise(text) for text in self.members.values())
        return counts.most_common(1)[0][0] if counts else ""

    @property
    def oracle(self) -> str:
        """A correct answer, if any member gave one."""
        return next((text for text in self.members.values() if is_right(text, self.question)), "")


class Server:
    """The public API of the scored server."""

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
    """The words of a text, without case, punctuation and spacing."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer has every part of the expected one, and nothing else."""
    return normalise(answer) == normalise(question.answer)


def text_of(reply: Mapping[str, Any]) -> str:
    return str(reply["choices"][0]["message"]["content"]) if reply else ""


async def score(url: str, count: int, ablate: bool) -> dict[str, Any]:
    """The figures, as the last line of `scripts/score_demo` prints them."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        server = Server(http, url)
        asked = await _all("panel and judge", [_asker(server, q) for q in held_out_questions(count)])
        if ablate:
            for member in MEMBERS:
                await _all(f"without {member}", [_remover(server, each, member) for each in asked])
            strangers = derange(asked, Random(5))
            pairs = zip(asked, strangers, strict=True)
            await _all("answers to other questions", [_mismatcher(server, each, other) for each, other in pairs])
    for error in Counter(server.errors).most_common(5):
        console.print(f"failed {error[1]} times: {error[0]}", style="red")
    groups = {f"{n} part{'s' * (n > 1)}": [a for a in asked if len(a.question.parts) == n] for n in (1, 2, 3)}
    rows = {name: figures(group, ablate=False) for name, group in groups.items() if group}
    result = figures(asked, ablate)
    return {**result, "groups": {**rows, "all": result}}


def figures(asked: Sequence[EnsembleRequest], ablate: bool) -> dict[str, Any]:
    """Accuracies from 0 to 1."""

    def share(answer: Callable[[EnsembleRequest], str]) -> float:
        return round(sum(is_right(answer(each), each.question) for each in asked) / len(asked), 4)

    def of_member(member: str) -> float:
        return share(lambda each: each.members.get(member, ""))

    result: dict[str, Any] = {
        "n": len(asked),
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


def _without(member: str) -> Callable[[EnsembleRequest], str]:
    return lambda each: each.without[member]


def table(asked_by_parts: Mapping[str, dict[str, Any]]) -> Table:
    """A row per group of questions."""
    out = Table("questions", "n", *MEMBERS, "vote", "oracle", "judge alone", "ensemble")
    for name, row in asked_by_parts.items():
        shares = [*row["members"].values(), row["vote"], row["oracle"], row["judge_alone"], row["ensemble"]]
        out.add_row(name, str(row["n"]), *(f"{share:.1%}" for share in shares))
    return out


def derange(asked: Sequence[EnsembleRequest], rng: Random) -> list[EnsembleRequest]:
    """The entries in an order where none is in its own place."""
    order = list(range(len(asked)))
    rng.shuffle(order)
    successor = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [asked[successor[i]] for i in range(len(asked))]


async def _all(title: str, jobs: Sequence[Callable[[], Awaitable[EnsembleRequest]]]) -> list[EnsembleRequest]:
    with Progress(console=console) as progress:
        bar = progress.add_task(title, total=len(jobs))

        async def one(job: Callable[[], Awaitable[EnsembleRequest]]) -> EnsembleRequest:
            result = await job()
            progress.advance(bar)
            return result

        return list(await asyncio.gather(*(one(job) for job in jobs)))


def _asker(server: Server, question: Question) -> Callable[[], Awaitable[EnsembleRequest]]:
    async def job() -> EnsembleRequest:
        fusion = {"include_intermediate_responses": True}
        reply, alone = await asyncio.gather(
            server.ask(_body(ENSEMBLE, question, fusion=fusion)),
            server.ask(_body(JUDGE, question, temperature=0, max_tokens=120)),
        )
        members = {each["model"]: each["content"] for each in reply["fusion"]["responses"]} if reply else {}
        return EnsembleRequest(question, members, text_of(reply), text_of(alone))

    return job


def _remover(server: Server, asked: EnsembleRequest, member: str) -> Callable[[], Awaitable[EnsembleRequest]]:
    async def job() -> EnsembleRequest:
        fusion = {"analysis_models": [m for m in MEMBERS if m != member], "analysis": "off"}
        asked.without[member] = text_of(await server.ask(_body(ENSEMBLE, asked.question, fusion=fusion)))
        return asked

    return job


def _mismatcher(
    server: Server, asked: EnsembleRequest, other: EnsembleRequest
) -> Callable[[], Awaitable[EnsembleRequest]]:
    """Ask the judge this question with the panel's answers to another one."""

    async def job() -> EnsembleRequest:
        conversation = [{"role": "user", "content": asked.question.text}]
        messages = prompts.final_messages(conversation, list(other.members.values()), secrets.token_hex(4))
        body = {"model": JUDGE, "messages": messages, "temperature": 0, "max_tokens": 120}
        asked.mismatched = text_of(await server.ask(body))
        return asked

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
