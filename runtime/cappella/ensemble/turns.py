"""One answer of a seat in the making: one call of its engine, or several with calls of the seat's own tools between."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from cappella.ensemble.call import Completion, EngineCall
from cappella.ensemble.lookup_budget import LookupBudget
from cappella.ensemble.run import Answer, Call
from cappella.ensemble.structured import formats
from cappella.ensemble.tool_loop import ToolLoop
from cappella.errors import EngineContextExceeded, EngineError, EngineOverBudget
from cappella.types import Chunk, Prompt


class Turns:
    """The turns of the answer `name`, from the first `call` on, of which it is a completion; readable at any moment.

    A seat that `has_tools` of its own may call them. While it `is_open` its last completion is no answer: it has not ended, or it ended in calls of the seat's tools. `error` is
    why a later call failed.
    """

    def __init__(self, name: str, call: EngineCall, completion: Completion, has_tools: bool) -> None:
        self.name = name
        self.completion = completion
        self.error: EngineError | None = None
        self._calls = [call]
        self._earlier: list[Completion] = []
        self._has_tools = has_tools

    @property
    def is_open(self) -> bool:
        return self.completion.finish_reason is None or (self._has_tools and self.completion.has_calls)

    @property
    def later_calls(self) -> list[Call]:
        """The calls after the first one, which may be of several answers."""
        return [call.record for call in self._calls[1:] if call.was_called]

    @property
    def answer(self) -> Answer:
        """The last completion as an answer, with the thoughts of all turns."""
        *lookups, last = (call.record for call in self._calls if call.was_called)
        answer = self.completion.answer(self.name, last)
        thoughts = [each.reasoning for each in (*self._earlier, self.completion) if each.reasoning]
        return replace(answer, reasoning="\n\n".join(thoughts), lookups=lookups)

    async def go_on(
        self, loop: ToolLoop, asked: Prompt, on_chunk: Callable[[Chunk], object], budget: LookupBudget | None = None
    ) -> None:
        """Make calls and ask again until it answers, in the format that was `asked` for. Sets `error`.

        Once the `budget` allows no more lookups, it answers with what it has found. Text of a turn that may be asked for once
        more, in the format or as it may be a call, goes to `on_chunk` only when that is known.
        """
        has_format = False
        try:
            while self.completion.has_calls and not self.completion.error(self.name):
                if all(each.has_calls for each in self._calls[-1].completions):
                    self._calls[-1].role = "lookup"
                said = self.completion.answer(self.name, self._calls[-1].record)
                as_text = self.completion.has_written_call
                await (budget.use(loop, said, as_text=as_text) if budget else loop.use(said, as_text=as_text))
                await self._ask(loop, asked, on_chunk, may_call=loop.may_call)
                has_format = not loop.may_call
            if not has_format and await self._violates(asked):
                await self._ask(loop, asked, on_chunk, may_call=False)
            elif not has_format and asked.output_format:
                on_chunk(Chunk(self.completion.text))
        except EngineOverBudget as error:
            self.error = EngineOverBudget(
                f"too few tokens are left for the answer of {self.name} after its first turn: {error}"
            )
        except EngineError as error:
            self.error = error

    async def _violates(self, asked: Prompt) -> bool:
        if asked.output_format is None or self.completion.error(self.name):
            return False
        return await formats.violation(asked.output_format, self.completion.text) is not None

    async def _ask(self, loop: ToolLoop, asked: Prompt, on_chunk: Callable[[Chunk], object], *, may_call: bool) -> None:
        """One more turn, with less of the results if they turn out too long. Raises EngineError.

        It is an answer where the tokens of the run allow nothing else.
        """
        try:
            held = await self._ask_once(loop, asked, on_chunk, may_call=may_call)
        except (EngineContextExceeded, EngineOverBudget) as error:
            if isinstance(error, EngineOverBudget):
                # Others have spent meanwhile what it counted on.
                loop.end_calls()
            may_call = may_call and loop.may_call
            if not loop.shorten():
                raise
            held = await self._ask_once(loop, asked, on_chunk, may_call=may_call)
        if may_call:
            self.completion.read_written_call(loop.names)
            return
        if loop.has_calls_for_answer(self.completion.text):
            await self._ask_once(loop, asked, on_chunk, may_call=False)
        elif held:
            on_chunk(Chunk(held))
        self.completion.drop_calls()

    async def _ask_once(
        self, loop: ToolLoop, asked: Prompt, on_chunk: Callable[[Chunk], object], *, may_call: bool
    ) -> str:
        """One turn. Returns the text of an answer that is not sent yet: it may be a call. Raises EngineError."""
        prompt, is_settled = (loop.prompt, not asked.output_format) if may_call else (loop.answering(asked), True)
        call = loop.new_call()
        self._earlier.append(self.completion)
        self._calls.append(call)
        self.completion = call.completions[0]
        held, is_held = "", not may_call
        async with aclosing(call.stream(loop.engine, prompt, loop.sampling)) as chunks:
            async for chunk in chunks:
                if is_held:
                    held += chunk.content
                    is_held = loop.may_be_calls(held)
                    chunk, held = (replace(chunk, content=""), held) if is_held else (replace(chunk, content=held), "")
                on_chunk(chunk if is_settled else replace(chunk, content=""))
        return held
