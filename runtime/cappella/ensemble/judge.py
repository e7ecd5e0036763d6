"""The judge of one run: compares the lettered answers, chooses one, or writes the final answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import evidence_share, grouping, prompts
from cappella.ensemble.analysis import with_names, without_letters
from cappella.ensemble.asking import Asking, unseen
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import CHOICE_TOKENS, mean, probabilities
from cappella.ensemble.citations import Citations
from cappella.ensemble.events import AnalysisDelta, AnalysisDone, AnalysisStarted, Emit
from cappella.ensemble.final_output import FinalOutput
from cappella.ensemble.judge_lookups import JudgeLookups
from cappella.ensemble.reading import Reading
from cappella.ensemble.run import Analysis, Answer, Call, Shortened
from cappella.ensemble.seat_tools import Tools
from cappella.ensemble.sources import Sources
from cappella.ensemble.structured.json_value import parse_json
from cappella.ensemble.together import AT_ONCE, together
from cappella.ensemble.token_limits import analysis_sampling, short_sampling, within_quarter
from cappella.errors import EngineError, EngineUnusable
from cappella.types import Chunk, Message, OutputFormat, Prompt

TOP_LOGPROBS = 20
DRAFT = "the answers before"
"""The name of what is made of them where not all fit at once."""


class Judge:
    """Judges `answers`, shown as `candidates`, over the conversation in `prompt`.

    `labels` maps the letters back to answers' names. `analysis` and `final_answer` are set once complete, and stay
    readable after a failure. `dropped_points` are those of the analysis that were only letters. `read_early` has the characters at the beginning of each answer that an early prefill sent.
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
        read_early: Mapping[str, int] | None = None,
        citations: Citations | None = None,
        tools: Tools | None = None,
        remaining_tokens: int | None = None,
    ) -> None:
        self.answers = answers
        self.settings = settings
        self.analysis: Analysis | None = None
        self.final_answer: Answer | None = None
        self.dropped_points = 0
        self._citations = citations or Citations(Sources())
        self._proposes_calls = bool(prompt.tools) and prompt.tool_choice != "none"
        self.asking = Asking(
            engine, settings.judge, candidates.nonce, self._citations, proposes_calls=self._proposes_calls
        )
        self._engine = engine
        self._prompt = prompt
        self._emit = emit
        self._output = FinalOutput(prompt, settings.judge_sampling.stop or (), self._citations, emit)
        self._candidates = candidates
        self.labels = candidates.labels
        self._ranking = ranking
        self._lettered_analysis: str | None = None
        look_up = JudgeLookups(self.asking, prompt, settings, tools).look_up if tools else None
        room_tokens = evidence_share.share(engine.capabilities.context_tokens, remaining_tokens)
        self._reading = Reading(engine, prompt, candidates, settings, read_early or {}, room_tokens, look_up)

    @property
    def output_format(self) -> OutputFormat | None:
        """The format that the caller requested for the final answer."""
        return self._prompt.output_format

    @property
    def rules_out_fallback(self) -> bool:
        """Whether the partial output already sent, of a tool call or in a format, allows no other answer after it."""
        return self._output.rules_out_another

    @property
    def calls(self) -> Sequence[Call]:
        """Every call to the judge, also failed ones, the final answer's last."""
        records = (call.record for call in self.asking.calls if call.was_called)
        return sorted(records, key=lambda call: call.role == "final")

    @property
    def has_output(self) -> bool:
        """Whether a piece of the final answer has been sent, be it of the thoughts before it."""
        return self._output.has_begun

    @property
    def shortened(self) -> Sequence[Shortened]:
        """The answers that it has read in part only."""
        return self._reading.shortened

    async def compare(self) -> None:
        """Set `analysis`. Raises EngineError."""
        self._emit(AnalysisStarted(self.labels))
        lettered = self._checked(await self._reading.ask(self._compare))
        kept, self.dropped_points = without_letters(lettered, self.labels)
        may_ask_again = self.dropped_points and not self._has_budget
        if may_ask_again and (second := await self._compared_again()):
            kept, self.dropped_points = without_letters(second, self.labels)
        self.analysis = with_names(kept, self.labels, self._prompt.messages)
        self._lettered_analysis = json.dumps(kept, ensure_ascii=False)
        self._emit(AnalysisDone(self.analysis))

    async def _compared_again(self) -> Any:
        """An analysis for one whose points were letters; None if it fails, since there is the first one."""
        try:
            return self._checked(await self._reading.ask(lambda candidates: self._compare(candidates, again=True)))
        except EngineError:
            return None

    def _checked(self, text: str) -> Any:
        """The analysis in a reply, with letters. Raises EngineUnusable."""
        try:
            lettered = parse_json(text)
        except ValueError as error:
            raise EngineUnusable(f"the judge's analysis is not JSON: {error}", "judge_not_valid_json") from error
        with_names(lettered, self.labels)
        return lettered

    async def _compare(self, candidates: Candidates, again: bool = False) -> str:
        messages = prompts.analysis_messages(
            self._prompt.messages,
            candidates.texts,
            candidates.nonce,
            self.settings.criteria,
            self.settings.judge_texts,
            again,
            between=candidates.between,
            has_sources=self._citations.are_possible,
        )
        sampling = analysis_sampling(self.settings, self._engine.capabilities)
        sampling = within_quarter(sampling, self.settings.max_total_tokens)
        json_schema = {"name": "analysis", "schema": prompts.analysis_schema(len(candidates.answers))}
        output_format = OutputFormat("response_format", {"type": "json_schema", "json_schema": json_schema})
        watched = self.settings.panel_watched and not again
        prompt = replace(self._question(messages, output_format), watched=watched)
        once = again or self._has_budget
        on_chunk = unseen if again else self._emit_analysis
        return (await self.asking.ask("analysis", prompt, sampling, on_chunk, once=once)).content

    async def write(self) -> Answer:
        """Stream the final answer; the prompt holds the analysis if there is one by now. Raises EngineError."""
        folds = self.settings.answers_exceed == "fold"
        # The analysis has letters of another reading.
        if folds and (answer := await self._reading.fold(self._draft, lambda window: self._write(window, None))):
            return answer
        return await self._reading.ask(lambda candidates: self._write(candidates, self._lettered_analysis))

    async def _write(self, candidates: Candidates, analysis: str | None) -> Answer:
        prompt = replace(self._prompt, messages=self._final_messages(candidates, analysis))
        sampling = self.settings.judge_sampling
        if self.settings.analysis == "alongside":
            sampling = within_quarter(sampling, self.settings.max_total_tokens)
        self.final_answer = await self.asking.ask(
            "final", prompt, sampling, lambda chunk: self._output.send(chunk.without_end())
        )
        return self.final_answer

    async def _draft(self, max_tokens: int, candidates: Candidates) -> Answer:
        """One answer from those of a window, for the judge to read in the next one."""
        wanted = self.settings.judge_sampling.max_completion_tokens or max_tokens
        limits = {"max_completion_tokens": min(wanted, max_tokens), "stop": None}
        sampling = self.settings.judge_sampling.model_copy(update=limits)
        draft = await self.asking.ask("fold", self._question(self._final_messages(candidates), None), sampling)
        return replace(draft, name=DRAFT)

    def _final_messages(self, candidates: Candidates, analysis: str | None = None) -> list[Message]:
        return prompts.final_messages(
            self._prompt.messages,
            candidates.texts,
            candidates.nonce,
            analysis,
            self.settings.criteria,
            tools=self._proposes_calls,
            ranking=self._ranking_letters(candidates),
            texts=self.settings.judge_texts,
            own_knowledge=self.settings.own_knowledge,
            has_sources=self._citations.are_possible,
            between=candidates.between,
        )

    async def choose(self, answers: Sequence[Answer]) -> tuple[Answer, Mapping[str, float]]:
        """The best of `answers` and each one's probability; with `debias` in balanced orders. Raises EngineError."""
        shares = await self._reading.ask(lambda candidates: self._choose_among(candidates.only(answers)))
        return max(answers, key=lambda answer: shares[answer.name]), shares

    async def confirms_agreement(self) -> bool:
        """Whether the judge finds that all answers say the same: one constrained word. Raises EngineError."""
        words = OutputFormat("structured_outputs", {"choice": ["yes", "no"]})
        ask = partial(self._compare_shortly, "agree", words, CHOICE_TOKENS, once=self._has_budget)
        return (await self._reading.ask(ask, looks_up=False)).strip() == "yes"

    async def group(self, answers: Sequence[Answer]) -> list[list[str]]:
        """The names of those of `answers` that say the same, in one constrained call. Raises EngineError."""
        form, tokens = grouping.form(len(answers)), grouping.tokens(len(answers))

        async def ask(candidates: Candidates) -> list[list[str]]:
            asked = candidates.only(answers)
            return grouping.parsed(await self._compare_shortly("group", form, tokens, asked), asked.labels)

        return await self._reading.ask(ask, looks_up=False)

    async def _compare_shortly(
        self,
        instruction: prompts.Short,
        output_format: OutputFormat,
        tokens: int,
        candidates: Candidates,
        *,
        once: bool = False,
    ) -> str:
        messages = prompts.agreement_messages(
            self._prompt.messages,
            candidates.texts,
            candidates.nonce,
            self.settings.judge_texts,
            instruction,
            candidates.between,
        )
        sampling = short_sampling(self.settings.judge_sampling, self._engine.capabilities, tokens)
        prompt = self._question(messages, output_format)
        return (await self.asking.ask("agreement", prompt, sampling, once=once)).content

    def return_verbatim(self, answer: Answer, after_partial_output: bool = False) -> Answer:
        """Emit a member's answer as the final one, cut at the caller's stop texts; returns it as it was emitted."""
        return self._output.send_verbatim(answer, after_partial_output)

    def _emit_analysis(self, chunk: Chunk) -> None:
        if chunk.content:
            self._emit(AnalysisDelta(chunk.content))

    async def _choose_among(self, candidates: Candidates) -> Mapping[str, float]:
        orders = candidates.balanced if self.settings.debias else [candidates]
        return mean(await together((partial(self._choose, order) for order in orders), AT_ONCE))

    async def _choose(self, candidates: Candidates) -> Mapping[str, float]:
        labels, ranking = candidates.labels, self._ranking_letters(candidates)
        messages = prompts.choice_messages(
            self._prompt.messages,
            candidates.texts,
            candidates.nonce,
            self.settings.criteria,
            ranking,
            self.settings.judge_texts,
            candidates.between,
        )
        output_format = OutputFormat("structured_outputs", {"choice": list(labels)})
        prompt = replace(self._question(messages, output_format), logprobs=TOP_LOGPROBS)
        sampling = short_sampling(self.settings.judge_sampling, self._engine.capabilities, CHOICE_TOKENS)
        answer = await self.asking.ask("choice", prompt, sampling)
        by_letter = probabilities(answer.logprobs, list(labels))
        return {labels[letter]: share for letter, share in by_letter.items()}

    @property
    def _has_budget(self) -> bool:
        """Whether tokens are limited: the answer needs what is left, so what a run can do without is not asked twice."""
        return self.settings.max_total_tokens is not None

    def _question(self, messages: Sequence[Any], output_format: OutputFormat | None) -> Prompt:
        """A prompt for any step but the final answer. It lists the same tools, so that the prefix cache matches."""
        tool_choice = "none" if self._prompt.tools else None
        effort = self._prompt.reasoning_effort
        return Prompt(
            messages,
            self._prompt.tools,
            tool_choice,
            output_format=output_format,
            reasoning_effort=effort,
            template_words=self._prompt.template_words,
            watched=False,
        )

    def _ranking_letters(self, candidates: Candidates) -> list[str] | None:
        """The members' ranking as letters of these candidates; None without a review."""
        return None if self._ranking is None else candidates.letters_of(self._ranking)
