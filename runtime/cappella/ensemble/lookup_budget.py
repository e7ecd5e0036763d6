"""What a member's lookups may take of the tokens of its run: its own answer needs some, and so does whoever reads it."""

from collections.abc import Callable
from dataclasses import dataclass

from cappella.ensemble.run import Answer
from cappella.ensemble.tool_loop import MIN_CALL_TOKENS, ToolLoop


@dataclass(frozen=True, slots=True)
class LookupBudget:
    """`remaining_tokens` is what is left of the run's `max_total_tokens`.

    Lookups leave `kept_tokens` of it to later rounds and to the judge; an answer has at most `answer_tokens`.
    """

    remaining_tokens: Callable[[], int]
    kept_tokens: int
    answer_tokens: int

    async def use(self, loop: ToolLoop, said: Answer, *, as_text: bool) -> None:
        """As `ToolLoop.use`, as far as the tokens allow; the loop calls no more once they allow no other turn but its answer.

        Raises EngineError.
        """
        read = await _size(loop) + said.call.usage.completion_tokens
        writes = min(self.answer_tokens, loop.sampling.max_completion_tokens or self.answer_tokens)
        # Two turns read what the calls give now, and one of them is the answer.
        most = (self.remaining_tokens() - self.kept_tokens - writes) // 2 - read
        if most < MIN_CALL_TOKENS:
            loop.end_calls()
            most = self.remaining_tokens() - read - writes
        if most < MIN_CALL_TOKENS:
            loop.refuse(said, "too few tokens of the run are left to read what it gives", as_text=as_text)
            return
        loop.left_tokens = most
        await loop.use(said, as_text=as_text)
        if await _size(loop) > read + most and loop.shorten() and await _size(loop) > read + most:
            loop.end_calls()
            loop.forget_last()


async def _size(loop: ToolLoop) -> int:
    return (await loop.engine.count_tokens(loop.prompt)).tokens
