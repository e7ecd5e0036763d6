"""A final answer as numbered blocks of reasoning, text and tool calls, for the APIs that open and close such blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cappella.ensemble.citations import Cited
from cappella.ensemble.events import Event, FinalDelta, Told
from cappella.ensemble.run import Answer
from cappella.types import Chunk, Json, ToolCall

Kind = Literal["progress", "reasoning", "text", "call"]


@dataclass(frozen=True, slots=True)
class Block:
    """A block as far as it is generated; the `text` of a call is its arguments, `citations` are those in its text."""

    index: int
    kind: Kind
    text: str = ""
    call: ToolCall | None = None
    logprobs: Sequence[Json] = ()
    citations: Sequence[Cited] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a block; in a delta `block` holds only the new piece."""

    change: Literal["opened", "delta", "closed"]
    block: Block


class Blocks:
    """Turns chunks into blocks, one open at a time; `closed` holds those that are complete."""

    def __init__(self, first_index: int = 0) -> None:
        self.closed: list[Block] = []
        self._first_index = first_index
        self._open: Block | None = None

    def add(self, chunk: Chunk, citations: Sequence[Cited] = ()) -> Iterator[Step]:
        if chunk.reasoning:
            yield from self._extend("reasoning", chunk.reasoning)
        if chunk.content:
            yield from self._extend("text", chunk.content, logprobs=chunk.logprobs, citations=citations)
        for call in chunk.tool_calls:
            yield from self._extend("call", call.arguments, call)

    def tell(self, text: str) -> Iterator[Step]:
        """Add a piece of the run's progress, as a block of its own before the others."""
        yield from self._extend("progress", text)

    def close(self) -> Iterator[Step]:
        if self._open:
            self.closed.append(self._open)
            yield Step("closed", self._open)
            self._open = None

    def _extend(
        self,
        kind: Kind,
        text: str,
        call: ToolCall | None = None,
        logprobs: Sequence[Json] = (),
        citations: Sequence[Cited] = (),
    ) -> Iterator[Step]:
        open_ = self._open
        if open_ is None or open_.kind != kind or (call and open_.call and open_.call.index != call.index):
            yield from self.close()
            open_ = Block(self._first_index + len(self.closed), kind, call=call)
            yield Step("opened", open_)
        new = [replace(each, at=len(open_.text) + each.at) for each in citations]
        all_of_it = ([*open_.logprobs, *logprobs], [*open_.citations, *new])
        self._open = Block(open_.index, kind, open_.text + text, open_.call, *all_of_it)
        if text:
            yield Step("delta", Block(open_.index, kind, text, open_.call, logprobs, new))


def blocks_of(answer: Answer, progress: str = "", citations: Sequence[Cited] = ()) -> list[Block]:
    """The blocks of a complete answer; an empty answer has one empty text block."""
    blocks = Blocks()
    chunk = Chunk(answer.content, answer.reasoning, answer.tool_calls, answer.logprobs)
    told = blocks.tell(progress) if progress else ()
    for _ in [*told, *blocks.add(chunk, citations), *blocks.close()]:
        pass
    is_empty = all(block.kind == "progress" for block in blocks.closed)
    return [*blocks.closed, *([Block(len(blocks.closed), "text")] if is_empty else [])]


def shown_chunk(event: Event) -> Chunk | None:
    """What an event adds to the answer that is shown, with the run's progress as reasoning; None if it adds nothing."""
    if isinstance(event, Told):
        return Chunk(reasoning=event.text)
    return event.chunk if isinstance(event, FinalDelta) else None
