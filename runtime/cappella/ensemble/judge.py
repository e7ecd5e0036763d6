"""The judge of one run: shows itself the answers under letters, compares them, and writes the final one."""

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import Any

from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.voice import Voice
from cappella.errors import EngineUnusable
from cappella.types import Analysis, AnalysisDone, Answer, Call, Emit, FinalDelta, Message, Seat, Settings


class Judge:
    """Answers are shuffled by the run's seed, anonymous, and fenced by a nonce that no member has seen.

    `labels` maps the letters back to seats. What was compared and written so far stays readable after a failure.
    """

    def __init__(
        self,
        engine: Engine,
        conversation: Sequence[Message],
        answers: Sequence[Answer],
        settings: Settings,
        emit: Emit,
    ) -> None:
        shown = list(answers)
        Random(settings.seed).shuffle(shown)
        self.labels = dict(zip(prompts.labels(len(shown)), (answer.seat.name for answer in shown), strict=True))
        self.analysis: Analysis | None = None
        self.comparing = Voice("analysis", settings.judge)
        self.writing = Voice("final", settings.judge)
        self.settings = settings
        self._engine = engine
        self._conversation = conversation
        self._texts = [prompts.defuse(answer.content, engine.special_tokens) for answer in shown]
        # Not from the seed: whoever knows the seed must still not be able to forge a mark.
        self._nonce = secrets.token_hex(4)
        self._emit = emit
        self._wrote = False
        self._lettered: str | None = None

    @property
    def answer(self) -> Answer | None:
        """The final answer, if it was written to its end."""
        voice = self.writing
        if not self._wrote:
            return None
        seat = Seat(self.settings.judge, self.settings.judge, self.settings.judge_sampling)
        return Answer(seat, voice.text, voice.finish_reason or "stop", voice.call, voice.reasoning)

    @property
    def calls(self) -> Sequence[Call]:
        """What was asked of the judge, whole or not, in order."""
        return [voice.call for voice in (self.comparing, self.writing) if voice.spoke]

    async def compare(self) -> None:
        """Set `analysis`. Raises EngineError."""
        messages = prompts.analysis_messages(self._conversation, self._texts, self._nonce, self.settings.criteria)
        sampling = replace(
            self.settings.judge_sampling, max_completion_tokens=self.settings.analysis_max_tokens, stop=None
        )
        schema = prompts.analysis_schema(len(self._texts))
        async with aclosing(self.comparing.speak(self._engine, messages, sampling, schema)) as texts:
            async for _ in texts:
                pass
        try:
            lettered = json.loads(self.comparing.text)
        except ValueError as error:
            raise EngineUnusable(f"the judge's analysis is not JSON: {error}", "judge_not_valid_json") from error
        self.analysis = _name(lettered, self.labels)
        self._lettered = prompts.defuse(json.dumps(lettered, ensure_ascii=False), self._engine.special_tokens)
        self._emit(AnalysisDone(self.analysis))

    async def write(self) -> None:
        """Stream the final answer, seeing the analysis if there is one by now. Raises EngineError."""
        messages = prompts.final_messages(
            self._conversation, self._texts, self._nonce, self._lettered, self.settings.criteria
        )
        sampling = self.settings.judge_sampling
        async with aclosing(self.writing.speak(self._engine, messages, sampling)) as texts:
            async for text in texts:
                self._emit(FinalDelta(text))
        self._wrote = True


def _name(lettered: Any, labels: Mapping[str, str]) -> Analysis:
    """The analysis with seats' names for letters. Raises EngineUnusable for a letter that nobody has."""
    try:
        return {
            "consensus": list(lettered["consensus"]),
            "contradictions": [
                {
                    "topic": each["topic"],
                    "stances": [{"model": labels[s["model"]], "stance": s["stance"]} for s in each["stances"]],
                }
                for each in lettered["contradictions"]
            ],
            "partial_coverage": [
                {"models": [labels[label] for label in each["models"]], "point": each["point"]}
                for each in lettered["partial_coverage"]
            ],
            "unique_insights": [
                {"model": labels[each["model"]], "insight": each["insight"]} for each in lettered["unique_insights"]
            ],
            "blind_spots": list(lettered["blind_spots"]),
        }
    except (KeyError, TypeError) as error:
        raise EngineUnusable(f"the judge's analysis does not fit: {error!r}", "judge_schema_mismatch") from error
