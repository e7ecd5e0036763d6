"""The rounds of a panel: in each after the first, the members also read the answers of the one before."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.events import Emit, RoundStarted
from cappella.ensemble.messages import for_member
from cappella.ensemble.panel import Question, WaitPolicy, ask_panel
from cappella.ensemble.run import Answer, Panel
from cappella.types import Message, Prompt


class Rounds:
    """`done` holds every round that was asked; `failure_reason` says why the last one does not count, if it does not."""

    def __init__(self, engines: Mapping[str, Engine], prompt: Prompt, settings: Settings, emit: Emit) -> None:
        self.done: list[Panel] = []
        self.failure_reason: str | None = None
        self._engines = engines
        self._prompt = prompt
        self._settings = settings
        self._emit = emit

    async def ask(self, left_s: float) -> Panel:
        """Ask as many rounds as there are layers. A later round below the quorum leaves the answers of the one before.

        The first round is returned whatever it gave.
        """
        settings = self._settings
        timeout_s = min(settings.round_timeout_s, left_s / settings.layers)
        panel = await self._round([], timeout_s)
        for number in range(2, settings.layers + 1):
            if len(panel.answers) < settings.quorum:
                break
            self._emit(RoundStarted(number))
            later = await self._round(panel.answers, timeout_s)
            if len(later.answers) < settings.quorum:
                self.failure_reason = "layer_below_quorum"
                break
            panel = later
        return panel

    async def _round(self, before: Sequence[Answer], timeout_s: float) -> Panel:
        questions = []
        for seat in self._settings.panel:
            engine = self._engines[seat.model]
            prompt = for_member(self._prompt, seat, engine.capabilities, self._settings)
            if before:
                prompt = replace(prompt, messages=self._layered(prompt.messages, before))
            questions.append(Question(seat, engine, prompt))
        patience = WaitPolicy(self._settings.quorum, timeout_s, self._settings.grace_s)
        panel = await ask_panel(questions, patience, self._emit)
        self.done.append(panel)
        return panel

    def _layered(self, messages: Sequence[Message], before: Sequence[Answer]) -> list[Message]:
        """As the judge's prompt: answers in a shuffled order, fenced, behind the conversation."""
        shown = list(before)
        Random(self._settings.seed).shuffle(shown)
        texts = [prompts.shown(answer) for answer in shown]
        return prompts.final_messages(
            messages, texts, secrets.token_hex(4), criteria=self._settings.criteria, tools=bool(self._prompt.tools)
        )
