"""A final answer as a row of blocks, for the APIs that number and close them: reasoning, text, tool calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cappella.ensemble.run import Answer
from cappella.types import Chunk, Json, ToolCall

Kind = Literal["reasoning", "text", "call"]


@dataclass(frozen=True, slots=True)
class Block:
    """A block as far as it has come; `text` is a call's arguments."""

    index: int
    kind: Kind
    text: str = ""
    call: ToolCall | None = None
    logprobs: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to a block; in a delta the block holds the new piece alone."""

    what: Literal["opened", "delta", "closed"]
    block: Block


class Blocks:
    """Turns chunks into blocks, one open at a time; `closed` holds the whole ones."""

    def __init__(self, first_index: int = 0) -> None:
        self.closed: list[Block] = []
        self._first_index = first_index
        self._open: Block | None = None

    def take(self, chunk: Chunk) -> Iterator[Step]:
        if chunk.reasoning:
            yield from self._extend("reasoning", chunk.reasoning)
        if chunk.content:
            yield from self._extend("text", chunk.content, logprobs=chunk.logprobs)
        for call in chunk.tool_calls:
            yield from self._extend("call", call.arguments, call)

    def close(self) -> Iterator[Step]:
        if self._open:
            self.closed.append(self._open)
            yield Step("closed", self._open)
            self._open = None

    def _extend(
        self, kind: Kind, text: str, call: ToolCall | None = None, logprobs: Sequence[Json] = ()
    ) -> Iterator[Step]:
        open_ = self._open
        if open_ is None or open_.kind != kind or (call and open_.call and open_.call.index != call.index):
            yield from self.close()
            open_ = Block(self._first_index + len(self.closed), kind, call=call)
            yield Step("opened", open_)
        self._open = Block(open_.index, kind, open_.text + text, open_.call, [*open_.logprobs, *logprobs])
        if text:
            yield Step("delta", Block(open_.index, kind, text, open_.call, logprobs))


def blocks_of(answer: Answer) -> list[Block]:
    """The blocks of a whole answer; an empty one is a block of no text."""
    blocks = Blocks()
    chunk = Chunk(answer.content, answer.reasoning, answer.tool_calls, answer.logprobs)
    for _ in [*blocks.take(chunk), *blocks.close()]:
        pass
    return blocks.closed or [Block(0, "text")]
