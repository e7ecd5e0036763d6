"""The parts of one judgement as they come: each is asked for by itself, and what fails is told beside what is there."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choosing import choose_in_turns, means, prefer, won
from cappella.ensemble.errors import DeadlineExceeded
from cappella.ensemble.grading import grade
from cappella.ensemble.judge import Judge
from cappella.ensemble.judge_calls import JudgeCalls
from cappella.ensemble.judgement import Grade, Judgement, JudgeTask, Missing, Preference, Ranked, Shares, Want, rank
from cappella.ensemble.run import Answer, Call
from cappella.errors import ContextLengthExceeded, EngineContextExceeded, EngineError, EngineUnusable, JudgeFailed
from cappella.types import Prompt

DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One part for these answers; `work` keeps what comes of it."""

    part: Want
    names: Sequence[str]
    work: Callable[[], Awaitable[None]]


class Parts:
    """The parts that the task wants of the judge `engine`, over the conversation as `for_judge` has it."""

    def __init__(
        self, engine: Engine, prompt: Prompt, settings: Settings, task: JudgeTask, answers: Sequence[Answer]
    ) -> None:
        self._task, self._answers, self._settings = task, answers, settings
        self._candidates = Candidates.shuffled(answers, settings.seed)
        self._made = JudgeCalls(engine, prompt, settings)
        # It keeps room for an analysis, which is all that it writes.
        sampling = settings.judge_sampling.model_copy(update={"max_completion_tokens": settings.analysis_max_tokens})
        comparing = settings.model_copy(update={"strategy": "synthesize", "judge_sampling": sampling})
        self.judge = Judge(engine, prompt, answers, self._candidates, comparing, lambda event: None)
        self._grades: dict[str, Sequence[Grade]] = {}
        self._preferences: list[Preference] = []
        self._choices: list[Shares] = []
        self._missing: list[Missing] = []
        self._errors: list[EngineError] = []

    @property
    def calls(self) -> Sequence[Call]:
        """Every call of the judge so far."""
        return [*self.judge.calls, *self._made.records]

    @property
    def judgement(self) -> Judgement:
        """What there is of it."""
        return Judgement(
            self._task,
            self._answers,
            self.judge.analysis,
            self._grades,
            sorted(self._preferences, key=lambda each: [self._place(name) for name in each.names]),
            self._ranking(),
            [*self._choices, *(order for each in self._preferences for order in each.orders)],
            self._missing,
            self._made.shortened,
        )

    async def gather(self) -> None:
        """Ask for all, until the deadline. Raises an error if nothing came of it."""
        jobs = list(self._jobs())
        ended: set[Job] = set()
        try:
            async with asyncio.timeout(self._settings.deadline_s), asyncio.TaskGroup() as group:
                for job in jobs:
                    group.create_task(self._do(job, ended))
        except TimeoutError:
            late = f"It was not there after {self._settings.deadline_s:.0f} s (deadline_s)."
            self._missing += [Missing(job.part, job.names, DEADLINE, late) for job in jobs if job not in ended]
        if not (self.judge.analysis or self._grades or self._preferences or self._choices):
            self._fail()

    async def _do(self, job: Job, ended: set[Job]) -> None:
        try:
            await job.work()
        except EngineError as error:
            self._errors.append(error)
            self._missing.append(Missing(job.part, job.names, error.reason, str(error)))
        ended.add(job)

    def _jobs(self) -> Iterator[Job]:
        want, names = self._task.want, [answer.name for answer in self._answers]
        if "analysis" in want:
            yield Job("analysis", names, self._compare)
        if "scores" in want:
            for answer in self._answers:
                yield Job("scores", [answer.name], partial(self._grade, answer))
        if "preference" in want:
            for pair in combinations(self._answers, 2):
                yield Job("preference", [each.name for each in pair], partial(self._prefer, pair))
        if self._task.ranked_by == "choice":
            yield Job("ranking", names, self._choose)

    async def _compare(self) -> None:
        async with self._made.turn:
            try:
                await self.judge.compare()
            finally:
                self._made.note("analysis", self.judge.shortened)

    async def _grade(self, answer: Answer) -> None:
        self._grades[answer.name] = await grade(self._made, self._candidates.only([answer]), self._task)

    async def _prefer(self, pair: tuple[Answer, Answer]) -> None:
        self._preferences.append(await prefer(self._made, self._candidates, pair))

    async def _choose(self) -> None:
        self._choices += await choose_in_turns(self._made, self._candidates)

    def _ranking(self) -> Sequence[Ranked]:
        match self._task.ranked_by:
            case "preference":
                return rank(won(self._preferences))
            case "scores":
                return rank({name: _share(grades) for name, grades in self._grades.items()})
            case "choice":
                return rank(means(self._choices))
        return ()

    def _place(self, name: str) -> int:
        return next(i for i, answer in enumerate(self._answers) if answer.name == name)

    def _fail(self) -> None:
        """Raises what tells the client best why there is nothing."""
        if not self._errors:
            raise DeadlineExceeded(self._missing[0].error, (), ())
        first = next((e for e in self._errors if not isinstance(e, EngineContextExceeded)), None)
        if first is None:
            message = f"The question leaves the judge {self._settings.judge} no room for the answers"
            raise ContextLengthExceeded(f"{message}: {self._errors[0]}")
        if isinstance(first, EngineUnusable):
            raise JudgeFailed(f"The judge {self._settings.judge} gave nothing that can be used: {first}.") from first
        raise first


def _share(grades: Sequence[Grade]) -> float:
    return sum(each.points for each in grades) / sum(each.criterion.points for each in grades)
