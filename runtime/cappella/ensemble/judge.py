"""The judge of one run: shows itself the answers under letters, compares, chooses, and writes the final one."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import CHOICE_TOKENS, brief, mean, probabilities
from cappella.ensemble.events import AnalysisDelta, AnalysisDone, AnalysisStarted, Emit, FinalDelta
from cappella.ensemble.fallback import cut_at_stop
from cappella.ensemble.run import Analysis, Answer, Call, Role
from cappella.ensemble.structured.json_value import value_of
from cappella.errors import EngineError, EngineUnusable
from cappella.types import Chunk, Form, Prompt, Sampling

TOP_LOGPROBS = 20


class Judge:
    """Reads `prompt`, the conversation as it can take it, and the `answers` as the candidates show them.

    `labels` maps the letters back to answers. What was compared and written so far stays readable after a failure;
    `failure_reason` is set by a step that failed without ending the verdict; `written` is its own answer, once whole.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        answers: Sequence[Answer],
        candidates: Candidates,
        settings: Settings,
        emit: Emit,
        ranking: Sequence[str] | None = None,
    ) -> None:
        self.answers = answers
        self.settings = settings
        self.analysis: Analysis | None = None
        self.failure_reason: str | None = None
        self.written: Answer | None = None
        self.voices: list[EngineCall] = []
        self._spoke = self._called = False
        self._engine = engine
        self._prompt = prompt
        self._emit = emit
        self._candidates = candidates
        self.labels = candidates.labels
        self._ranking = ranking
        self._lettered: str | None = None

    @property
    def form(self) -> Form | None:
        """The form that the caller wants of the final answer."""
        return self._prompt.form

    @property
    def cannot_be_followed(self) -> bool:
        """Whether what it said before it broke off, half a form or half a call, would spoil any answer behind it."""
        return self._called or (self._spoke and self.form is not None)

    @property
    def calls(self) -> Sequence[Call]:
        """What was asked of the judge, whole or not, the final answer last."""
        return sorted((voice.call for voice in self.voices if voice.spoke), key=lambda call: call.role == "final")

    async def compare(self) -> None:
        """Set `analysis`, or `failure_reason` if there is none to be had."""
        try:
            await self._compare()
        except EngineError as error:
            self.failure_reason = error.reason

    async def write(self) -> Answer:
        """Stream the final answer, seeing the analysis if there is one by now. Raises EngineError."""
        messages = prompts.final_messages(
            self._prompt.messages,
            self._candidates.texts,
            self._candidates.nonce,
            self._lettered,
            self.settings.criteria,
            tools=bool(self._prompt.tools),
            ranking=self._ranked(self._candidates),
        )
        voice = self._voice("final")
        prompt = replace(self._prompt, messages=messages)
        sampling = self.settings.judge_sampling
        if self.settings.analysis == "alongside":
            sampling = self._within_budget(sampling)
        async with aclosing(voice.speak(self._engine, prompt, sampling)) as chunks:
            async for chunk in chunks:
                self._say(chunk.without_end())
        if problem := voice.takes[0].problem(self.settings.judge):
            raise problem
        self.written = voice.takes[0].answer(self.settings.judge, voice.call)
        return self.written

    async def choose(self, answers: Sequence[Answer]) -> tuple[Answer, Mapping[str, float]]:
        """The best of the answers and the judge's probability for each; both orders with `debias`. Raises EngineError."""
        shown = self._candidates.only(answers)
        orders = [shown, shown.reversed()] if self.settings.debias else [shown]
        each = mean(await asyncio.gather(*(self._choose(order) for order in orders)))
        return max(answers, key=lambda answer: each[answer.name]), each

    async def sees_agreement(self) -> bool:
        """Whether all answers say the same, in one constrained word. Raises EngineError."""
        shown = self._candidates
        messages = prompts.agreement_messages(self._prompt.messages, shown.texts, shown.nonce)
        prompt = self._aside(messages, Form("structured_outputs", {"choice": ["yes", "no"]}))
        return (await self._voice("agreement").say(self._engine, prompt, self._brief)).strip() == "yes"

    def hand_on(self, answer: Answer, behind_what_was_said: bool = False) -> Answer:
        """Send a member's answer as the final one, ended where the caller's stop texts end it."""
        answer = cut_at_stop(answer, self.settings.judge_sampling.stop or ())
        gap = "\n\n" if behind_what_was_said and self._spoke else ""
        self._say(Chunk(gap + answer.content, answer.reasoning, answer.tool_calls, answer.logprobs))
        return answer

    async def _compare(self) -> None:
        self._emit(AnalysisStarted(self.labels))
        shown, criteria = self._candidates, self.settings.criteria
        messages = prompts.analysis_messages(self._prompt.messages, shown.texts, shown.nonce, criteria)
        limits = {"max_completion_tokens": self.settings.analysis_max_tokens, "stop": None}
        sampling = self.settings.judge_sampling.model_copy(update=limits)
        schema = prompts.analysis_schema(len(shown.shown))
        form = Form("response_format", {"type": "json_schema", "json_schema": {"name": "analysis", "schema": schema}})
        prompt = replace(self._aside(messages, form), watched=self.settings.panel_watched)
        voice = self._voice("analysis")
        text = await voice.say(self._engine, prompt, self._within_budget(sampling), self._tell_of_analysis)
        try:
            lettered = value_of(text)
        except ValueError as error:
            raise EngineUnusable(f"the judge's analysis is not JSON: {error}", "judge_not_valid_json") from error
        self.analysis = named(lettered, self.labels)
        self._lettered = json.dumps(lettered, ensure_ascii=False)
        self._emit(AnalysisDone(self.analysis))

    def _tell_of_analysis(self, chunk: Chunk) -> None:
        if chunk.content:
            self._emit(AnalysisDelta(chunk.content))

    async def _choose(self, shown: Candidates) -> Mapping[str, float]:
        labels, criteria = shown.labels, self.settings.criteria
        messages = prompts.choice_messages(
            self._prompt.messages, shown.texts, shown.nonce, criteria, self._ranked(shown)
        )
        form = Form("structured_outputs", {"choice": list(labels)})
        voice = self._voice("choice")
        prompt = replace(self._aside(messages, form), logprobs=TOP_LOGPROBS)
        await voice.say(self._engine, prompt, self._brief)
        by_letter = probabilities(voice.takes[0].logprobs, list(labels))
        return {labels[letter]: share for letter, share in by_letter.items()}

    @property
    def _brief(self) -> Sampling:
        return brief(self.settings.judge_sampling, self._engine.capabilities, CHOICE_TOKENS)

    def _within_budget(self, sampling: Sampling) -> Sampling:
        """At most a quarter of a budget, where two calls have to share what the panel left."""
        total = self.settings.max_total_tokens
        if total is None:
            return sampling
        limits = [limit for limit in (total // 4, sampling.max_completion_tokens) if limit is not None]
        return sampling.model_copy(update={"max_completion_tokens": min(limits)})

    def _aside(self, messages: Sequence[Any], form: Form) -> Prompt:
        """A question that is not the caller's. It names the same tools, so that its prompt begins the same."""
        tool_choice = "none" if self._prompt.tools else None
        effort = self._prompt.reasoning_effort
        tools = self._prompt.tools
        return Prompt(messages, tools, tool_choice, form=form, reasoning_effort=effort, watched=False)

    def _voice(self, role: Role) -> EngineCall:
        self.voices.append(EngineCall(role, self.settings.judge))
        return self.voices[-1]

    def _ranked(self, shown: Candidates) -> list[str] | None:
        """The members' ranking, in the letters of this order."""
        return None if self._ranking is None else shown.letters_of(self._ranking)

    def _say(self, chunk: Chunk) -> None:
        if chunk.content or chunk.reasoning or chunk.tool_calls or chunk.logprobs:
            self._spoke = True
            self._called = self._called or bool(chunk.tool_calls)
            self._emit(FinalDelta(chunk))


def named(lettered: Any, labels: Mapping[str, str]) -> Analysis:
    """The analysis with answers' names for letters. Raises EngineUnusable for a letter that nobody has."""
    try:
        return {
            "consensus": [_text(each) for each in lettered["consensus"]],
            "contradictions": [
                {
                    "topic": _text(each["topic"]),
                    "stances": [{"model": labels[s["model"]], "stance": _text(s["stance"])} for s in each["stances"]],
                }
                for each in lettered["contradictions"]
            ],
            "partial_coverage": [
                {"models": [labels[label] for label in each["models"]], "point": _text(each["point"])}
                for each in lettered["partial_coverage"]
            ],
            "unique_insights": [
                {"model": labels[each["model"]], "insight": _text(each["insight"])}
                for each in lettered["unique_insights"]
            ],
            "blind_spots": [_text(each) for each in lettered["blind_spots"]],
        }
    except (KeyError, TypeError) as error:
        raise EngineUnusable(f"the judge's analysis does not fit: {error!r}", "judge_schema_mismatch") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("what should be a text is none")
    return value
