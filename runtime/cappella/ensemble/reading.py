"""What the judge reads of the answers: as they fit into its context, the same in all its calls, so that its cache matches."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from cappella.config.abilities import groups_by
from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import grouping
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import CHOICE_TOKENS
from cappella.ensemble.evidence_share import is_much, with_evidence, with_less_evidence
from cappella.ensemble.run import Answer, Shortened
from cappella.ensemble.shares import Fitting, Reply, early_share, fit
from cappella.errors import EngineContextExceeded
from cappella.types import Capabilities, Message, Prompt
from cappella.vocabulary import STRATEGIES

LESS = 0.5
"""The share of the room that is left to the answers after the engine has refused them: some only estimate tokens."""
T = TypeVar("T")
LookUp = Callable[[Candidates], Awaitable[Sequence[Message]]]
"""Looks things up over the answers, and returns the turns."""


class Reading:
    """One judge's reading of `candidates`. Of each answer in `kept` it has read so many characters early.

    Before it reads them for anything else, it may `look_up` something. The passages behind them have `evidence_tokens`.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        candidates: Candidates,
        settings: Settings,
        kept: Mapping[str, int],
        evidence_tokens: int,
        look_up: LookUp | None = None,
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._all = candidates
        self._settings = settings
        self._kept = kept
        self._fitting: Fitting | None = None
        self._is_less = self._has_less_evidence = False
        self._folded: dict[str, Shortened] | None = None
        self._lock = asyncio.Lock()
        self._evidence_tokens = evidence_tokens
        self._look_up = look_up
        self._has_evidence = False
        self._preparing = asyncio.Lock()

    @property
    def shortened(self) -> Sequence[Shortened]:
        """The answers of which it has read a part only, by the candidates' order."""
        fitted = self._fitting.candidates.parts if self._fitting else {}
        parts = fitted if self._folded is None else self._folded
        return [parts[answer.name] for answer in self._all.answers if answer.name in parts]

    async def ask(self, call: Callable[[Candidates], Awaitable[T]], *, looks_up: bool = True) -> T:
        """The call's result; asked again if the engine refuses the prompt as too long: with less evidence, then with shorter answers.

        What only saves work `looks_up` nothing. Raises EngineError, EngineContextExceeded if the conversation alone leaves no room.
        """
        await self._prepare(looks_up=looks_up)
        fitting = await self._fit()
        while True:
            try:
                return await call(fitting.candidates)
            except EngineContextExceeded:
                less = await self._fit_less(fitting)
                if less.candidates == fitting.candidates:
                    raise
                fitting = less

    async def fold(
        self, synthesize: Callable[[int, Candidates], Awaitable[Answer]], write: Callable[[Candidates], Awaitable[T]]
    ) -> T | None:
        """What `write` makes of the last window over the answers: a draft of those before, and the rest.

        `synthesize` makes a draft of the answers in a window, of at most so many tokens. None if they fit as a whole.
        Raises EngineError.
        """
        await self._prepare(looks_up=True)
        fitting = await self._fit()
        if not fitting.candidates.parts:
            return None
        self._folded = {}
        waiting, window, size = list(self._all.answers), list[Answer](), 0
        made_of = dict[str, Sequence[str]]()
        while True:
            while waiting and (len(window) < 2 or size + fitting.sizes[waiting[0].name] <= fitting.room):
                size += fitting.sizes[waiting[0].name]
                window.append(waiting.pop(0))
            if not waiting:
                return await self._ask_window(window, made_of, write)
            draft = await self._ask_window(window, made_of, partial(synthesize, fitting.room // 2))
            made_of = {draft.name: [name for answer in window for name in made_of.get(answer.name, [answer.name])]}
            window, size, fitting = [draft], draft.call.usage.completion_tokens, self._fitting or fitting

    async def _prepare(self, *, looks_up: bool) -> None:
        """Fit the evidence, and let the judge look things up over the answers, with room for what it finds, once each.

        Later prompts go on from that.
        """
        async with self._preparing:
            if not self._has_evidence:
                self._all = await with_evidence(self._all, self._engine, self._evidence_tokens)
                self._has_evidence = True
            if looks_up and self._look_up:
                lookups = await self._look_up((await self._fitted(self._all, self._kept, LESS)).candidates)
                self._all, self._look_up = replace(self._all, lookups=lookups), None
                self._fitting = None

    async def _ask_window(
        self, window: Sequence[Answer], made_of: Mapping[str, Sequence[str]], call: Callable[[Candidates], Awaitable[T]]
    ) -> T:
        """As `ask`, with a window of its own. After a refusal all later windows have less room."""
        fitted = await self._fit_window(window, made_of)
        while True:
            try:
                result = await call(fitted.candidates)
                break
            except EngineContextExceeded:
                refused = fitted.candidates
                await self._fit_less(await self._fit())
                fitted = await self._fit_window(window, made_of)
                if fitted.candidates == refused:
                    raise
        names = {answer.name for answer in self._all.answers}
        self._folded = {
            **(self._folded or {}),
            **{n: part for n, part in fitted.candidates.parts.items() if n in names},
        }
        return result

    async def _fit_window(self, window: Sequence[Answer], made_of: Mapping[str, Sequence[str]]) -> Fitting:
        candidates = replace(self._all, answers=window, made_of=made_of)
        return await self._fitted(candidates, {}, LESS if self._is_less else 1.0)

    async def _fit(self) -> Fitting:
        async with self._lock:
            if self._fitting is None:
                kept, scale = ({}, LESS) if self._is_less else (self._kept, 1.0)
                self._fitting = await self._fitted(self._all, kept, scale)
        if not self._fitting.has_room:
            raise EngineContextExceeded(
                f"the conversation leaves {self._settings.judge} no room to read answers and write one", 400
            )
        return self._fitting

    async def _fit_less(self, refused: Fitting) -> Fitting:
        """Other calls at the same time may have been refused as well."""
        async with self._lock:
            if self._fitting is not refused:
                return self._fitting or refused
            if is_much(self._all) and not self._has_less_evidence:
                self._has_less_evidence, self._all = True, with_less_evidence(self._all)
                self._fitting = await self._fitted(self._all, self._kept)
            elif not self._is_less:
                self._is_less = True
                self._fitting = await self._fitted(self._all, {}, LESS)
        return self._fitting or refused

    async def _fitted(self, candidates: Candidates, kept: Mapping[str, int], scale: float = 1.0) -> Fitting:
        settings = self._settings
        reply = reply_of(settings, self._engine.capabilities)
        return await fit(
            candidates, self._prompt, self._engine, reply, settings.criteria, kept, scale, settings.judge_texts
        )


def reply_of(settings: Settings, judge: Capabilities) -> Reply:
    """How long the judge's reply may be: a word if it chooses, or a group for each answer, unless it reasons first."""
    if not STRATEGIES[settings.strategy].judge_writes:
        groups = grouping.tokens(len(settings.answer_names)) if groups_by(settings) == "judge" else 0
        return Reply(None if judge.reasoning else max(CHOICE_TOKENS, groups))
    analysis = settings.analysis_max_tokens if settings.analysis == "before" else 0
    return Reply(settings.judge_sampling.max_completion_tokens, analysis)


def early_tokens(settings: Settings, judge: Capabilities, prompt: Prompt) -> int | None:
    """About how many tokens of each answer the judge reads for certain; None for all."""
    return early_share(prompt, judge.context_tokens, reply_of(settings, judge), len(settings.answer_names))
