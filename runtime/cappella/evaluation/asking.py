"""Asks: each member once, then each run over the stored answers, then samples of the best member. Nothing is asked twice."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cappella.errors import CappellaError
from cappella.evaluation import outcomes, scorers, ways
from cappella.evaluation.data import Question, digest
from cappella.evaluation.ensemble import Ensemble, Member
from cappella.evaluation.outcomes import Outcome, Results, Row
from cappella.evaluation.progress import Pace
from cappella.evaluation.server import Answer, Server, Unanswered
from cappella.evaluation.store import Store
from cappella.evaluation.ways import Way
from cappella.tools.sandbox import Sandbox
from cappella.types import Json
from cappella.version import __version__

VERSION = 1
"""Of the requests. Answers that were kept under another version are asked for anew."""
MAX_SAMPLES = 32
SAMPLES = "samples of the best member"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask. `samples` None: as many as the dearest run costs; `best` None: chosen by halves."""

    questions: Sequence[Question]
    ensemble: Ensemble
    runs: Sequence[Way]
    judge_alone: bool
    scorer: str
    rubric_judge: str
    samples: int | None = None
    best: str | None = None
    at_once: int = 4


Given = tuple[Outcome, Answer]


class Asking:
    """One evaluation over a server and a store. `tell` hears of each step."""

    def __init__(
        self,
        plan: Plan,
        server: Server,
        store: Store,
        sandbox: Sandbox | None,
        pace: Pace,
        tell: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._server = server
        self._store = store
        self._sandbox = sandbox
        self._pace = pace
        self._tell = tell
        self._slots = asyncio.Semaphore(plan.at_once)
        self._asked: dict[str, asyncio.Task[tuple[Answer, bool]]] = {}
        self._scored: dict[str, asyncio.Task[scorers.Score]] = {}
        self.problems: Counter[str] = Counter()

    async def all(self) -> Results:
        """Every answer and outcome. Raises CappellaError where the server answers nothing any more."""
        plan = self._plan
        names = [member.name for member in plan.ensemble.members]
        self._announce()
        given = {
            member.name: await self._column(member.name, _of_member(plan, member)) for member in plan.ensemble.members
        }
        members = {name: [each and each[0] for each in column] for name, column in given.items()}
        best = self._best(members)
        rows, traces = await self._runs(given)
        samples = await self._samples(best, members, rows)
        panels = [[row[i] for row in members.values()] for i in range(len(plan.questions))]
        contested = [
            outcomes.is_contested(
                [each for each in panel if each], scorers.chosen_for(question, plan.scorer) not in scorers.FREE_TEXT
            )
            for question, panel in zip(plan.questions, panels, strict=True)
        ]
        return Results(
            questions=plan.questions, names=names, members=members, best=best, ways=rows, samples=samples, traces=traces,
            problems=self.problems, contested=contested, judge=plan.ensemble.judge,
            models={member.name: member.model for member in plan.ensemble.members},
        )  # fmt: skip

    def _announce(self) -> None:
        """Plans all steps, so that the remaining time is that of everything."""
        plan, count = self._plan, len(self._plan.questions)
        for way in [*(each.name for each in plan.ensemble.members), *(run.name for run in plan.runs)]:
            self._pace.plan(way, count)
        if plan.judge_alone:
            self._pace.plan(ways.JUDGE, count)
        guess = len(plan.ensemble.members) + 1 if plan.samples is None else plan.samples
        self._pace.plan(SAMPLES, count * guess)

    def _best(self, members: dict[str, Row]) -> list[str]:
        if self._plan.best is not None:
            return [self._plan.best] * len(self._plan.questions)
        return outcomes.best_by_halves(members, halves(self._plan.questions))

    async def _runs(self, given: dict[str, list[Given | None]]) -> tuple[dict[str, Row], dict[str, list[Json | None]]]:
        plan = self._plan
        rows: dict[str, Row] = {}
        traces: dict[str, list[Json | None]] = {}
        if plan.judge_alone:
            alone = await self._column(ways.JUDGE, _of_judge(plan))
            rows[ways.JUDGE] = [each and each[0] for each in alone]
        for run in plan.runs:
            used = ways.used(plan.ensemble, run)
            panels = [[given[name][i] for name in used] for i in range(len(plan.questions))]
            column = await self._column(run.name, _of_run(plan, run, given))
            rows[run.name] = [
                each and outcomes.after([member[0] for member in panel if member], each[0])
                for each, panel in zip(column, panels, strict=True)
            ]
            traces[run.name] = [each and each[1].fusion for each in column]
        return rows, traces

    async def _samples(self, best: Sequence[str], members: dict[str, Row], rows: dict[str, Row]) -> list[list[Outcome]]:
        plan = self._plan
        count = plan.samples
        if count is None:
            own = [members[name][i] for i, name in enumerate(best)]
            count = samples_for([rows[run.name] for run in plan.runs if not run.without], own)
        self._pace.plan(SAMPLES, count * len(plan.questions))
        found = []
        for number in range(count):
            column = await self._column(SAMPLES, _of_sample(plan, best, number), planned=True)
            found.append([each and each[0] for each in column])
        return [[each[i] for each in found if each[i] is not None] for i in range(len(plan.questions))]  # type: ignore[misc]

    async def _column(self, way: str, body_of: "_Bodies", planned: bool = False) -> list[Given | None]:
        """The outcome of a way for each question, None where there is none."""
        if not planned:
            self._pace.plan(way, len(self._plan.questions))
        jobs = [self._one(way, i, body_of(i)) for i in range(len(self._plan.questions))]
        return await _all(jobs)

    async def _one(self, way: str, number: int, body: Json | None) -> Given | None:
        question = self._plan.questions[number]
        async with self._slots:
            began = time.monotonic()
            given, kept = None, False
            try:
                if body is None:
                    raise Unanswered("no member answered")
                answer, kept = await self._answer(body)
                given = await self._outcome(question, answer), answer
            except Unanswered as error:
                self.problems[f"{way}: {error}"] += 1
            self._pace.finish(way, None if kept else time.monotonic() - began)
            self._tell(way)
            return given

    async def _outcome(self, question: Question, answer: Answer) -> Outcome:
        score = await self._score(question, answer.content)
        return Outcome(
            score.right, score.value, score.unread, answer.read_tokens, answer.written_tokens, answer.seconds
        )

    async def _answer(self, body: Json) -> tuple[Answer, bool]:
        """The answer, and whether the store had it. Raises Unanswered."""
        key = digest([VERSION, __version__, body, self._identity(body)])
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self._kept_answer(key, body))
        return await self._asked[key]

    async def _kept_answer(self, key: str, body: Json) -> tuple[Answer, bool]:
        kept = self._store.reply(key)
        if kept is not None:
            return Answer(**kept), True
        answer = await self._server.ask(body)
        # The members' answers are in the store already.
        fusion = answer.fusion and {name: value for name, value in answer.fusion.items() if name != "responses"}
        self._store.keep_reply(
            key,
            {
                "content": answer.content,
                "read_tokens": answer.read_tokens,
                "written_tokens": answer.written_tokens,
                "seconds": answer.seconds,
                "fusion": fusion,
            },
        )
        return answer, False

    def _identity(self, body: Json) -> list[str]:
        """What a reply depends on beside its request."""
        ensemble, model = self._plan.ensemble, str(body["model"])
        if model != ensemble.called:
            return [ensemble.identities.get(model, "")]
        return [ensemble.settings, *(f"{name} {each}" for name, each in ensemble.identities.items())]

    async def _score(self, question: Question, text: str) -> scorers.Score:
        name = scorers.chosen_for(question, self._plan.scorer)
        judge = self._plan.rubric_judge if name == "rubric" else ""
        weights = self._plan.ensemble.identities.get(judge, "")
        key = digest([scorers.VERSION, __version__, name, question.key, text, judge, weights])
        if key not in self._scored:
            self._scored[key] = asyncio.create_task(self._kept_score(key, question, name, text))
        return await self._scored[key]

    async def _kept_score(self, key: str, question: Question, name: str, text: str) -> scorers.Score:
        if (kept := self._store.outcome(key)) is not None:
            return scorers.from_json(kept)
        score = await scorers.score(question, name, text, self._sandbox, self._ask_rubric)
        if score.lasting:
            self._store.keep_outcome(key, scorers.to_json(score))
        return score

    async def _ask_rubric(self, messages: Sequence[Json]) -> str:
        answer, _ = await self._answer(ways.rubric_body(self._plan.rubric_judge, messages))
        return answer.content


_Bodies = Callable[[int], Json | None]


def _of_member(plan: Plan, member: Member) -> _Bodies:
    return lambda i: ways.member_body(member, plan.questions[i])


def _of_judge(plan: Plan) -> _Bodies:
    return lambda i: ways.judge_body(plan.ensemble, plan.questions[i])


def _of_sample(plan: Plan, best: Sequence[str], number: int) -> _Bodies:
    return lambda i: ways.sample_body(plan.ensemble.named(best[i]), plan.questions[i], number)


def _of_run(plan: Plan, run: Way, given: dict[str, list[Given | None]]) -> _Bodies:
    def body(i: int) -> Json | None:
        found = ((plan.ensemble.named(name), column[i]) for name, column in given.items() if name != run.without)
        answers = [(member, each[1].content) for member, each in found if each is not None]
        return ways.run_body(plan.ensemble, run, plan.questions[i], answers) if answers else None

    return body


async def _all(jobs: Sequence[Awaitable[Given | None]]) -> list[Given | None]:
    """The results in order; at the first error the other jobs end."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    except CappellaError:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def halves(questions: Sequence[Question]) -> list[int]:
    """A half, 0 or 1, for each question: of equal size in each category, by nothing but the question's own id."""
    order = sorted(range(len(questions)), key=lambda i: (questions[i].category, digest(questions[i].id)))
    half_of = [0] * len(questions)
    for place, i in enumerate(order):
        half_of[i] = place % 2
    return half_of


def samples_for(runs: Sequence[Row], own: Row) -> int:
    """How many answers of the best member cost at least as many tokens as the dearest of these runs; 1 to MAX_SAMPLES."""
    cost = mean_tokens(own)
    dearest = max((mean_tokens(row) for row in runs), default=0.0)
    return min(MAX_SAMPLES, max(1, math.ceil(dearest / cost))) if cost else 1


def mean_tokens(row: Row) -> float:
    there = [each.tokens for each in row if each is not None]
    return sum(there) / len(there) if there else 0.0
