"""Cuts our own fences from what a model generates: small models copy the marks around the answers that they were shown.

A mark is known by the nonce of the prompt that the model read. It can copy no other; and what only looks like a mark,
such as in a text that a user asks about, stays as it is.
"""

import re
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache, partial

from cappella.ensemble.own_introduction import IntroductionCutter
from cappella.ensemble.prompts import CLOSE_MARK, OPEN_MARK, RESULT_MARK
from cappella.types import Chunk, Json, ToolCall

_BEGUN = r"(?:\n|\n?\[[a-z]{0,6}(?: (?:[A-Z](?: [0-9a-f]{0,8}\]?)?)?)?)"
"""The beginning of a mark with any nonce, and little else: it is only held back."""
_BEGUN_AT_END = re.compile(rf"(?P<begun>{_BEGUN}\Z)")


class TextCutter:
    """Cuts marks from a text that comes in pieces. However it is split, the results join to the same text.

    What may begin a mark is held back until that is known: at most the length of a mark.
    """

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._held = ""

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def add(self, piece: str) -> str:
        """The text that is known by now."""
        if not self._held and "[" not in piece and not piece.endswith("\n"):
            return piece
        text, self._held = self._held + piece, ""
        # A run's own pattern takes a millisecond to compile, and few texts hold the run's nonce.
        marks = _patterns(self._nonce)[0] if self._nonce in text else _BEGUN_AT_END
        return marks.sub(self._hold, text)

    def end(self) -> str:
        """The rest of the text. A mark that is cut off in its nonce, by a limit of tokens, is cut as well."""
        held, self._held = self._held, ""
        return _patterns(self._nonce)[1].sub("", held) if "[" in held else held

    def _hold(self, match: re.Match[str]) -> str:
        self._held = match["begun"] or ""
        return ""


class HeldLogprobs:
    """Holds log-probabilities back as long as their text: those of held text come with the next text."""

    def __init__(self) -> None:
        self._held: list[Json] = []

    @property
    def are_any(self) -> bool:
        return bool(self._held)

    def with_text(self, chunk: Chunk, content: str) -> list[Json]:
        """Those that go with `content`, which is what is sent now in the place of the chunk's own."""
        self._held += chunk.logprobs
        if not content and chunk.content and chunk.finish_reason is None:
            return []
        logprobs, self._held = self._held, []
        return logprobs


class ChunkCutter:
    """Cuts marks from one completion: its reasoning, its content, and the arguments of its tool calls.

    The content may begin with our introduction, which is cut as well.

    A text ends where another begins. Log-probabilities stay whole, those of cut tokens too, as they tell what the model
    generated; those of held text come with the next text.
    """

    def __init__(self, nonce: str) -> None:
        self._reasoning, self._content = TextCutter(nonce), TextCutter(nonce)
        self._introduction = IntroductionCutter(nonce)
        self._arguments: defaultdict[int, TextCutter] = defaultdict(partial(TextCutter, nonce))
        self._logprobs = HeldLogprobs()

    def cut(self, chunk: Chunk) -> Chunk:
        """The chunk without marks and what is held back, with what was held of the texts that it ends."""
        if chunk.is_plain and not (self._reasoning.is_holding or self._logprobs.are_any):
            content = self._content.add(self._introduction.add(chunk.content))
            # Most pieces are of this kind, and stay as they are.
            return chunk if content == chunk.content else replace(chunk, content=content)
        is_last = chunk.finish_reason is not None
        reasoning = self._reasoning.add(chunk.reasoning)
        content = self._content.add(self._introduction.add(chunk.content))
        if chunk.content or chunk.tool_calls or is_last:
            reasoning += self._reasoning.end()
        if chunk.tool_calls or is_last:
            content += self._content.add(self._introduction.end()) + self._content.end()
        calls = [piece for call in chunk.tool_calls for piece in self._cut_call(call)]
        calls += self._rest_of_calls() if is_last else []
        logprobs = self._logprobs.with_text(chunk, content)
        return replace(chunk, content=content, reasoning=reasoning, tool_calls=calls, logprobs=logprobs)

    def _cut_call(self, piece: ToolCall) -> list[ToolCall]:
        """The piece of a call, after what was held of the calls before it."""
        before = self._rest_of_calls(but=piece.index)
        return [*before, replace(piece, arguments=self._arguments[piece.index].add(piece.arguments))]

    def _rest_of_calls(self, but: int | None = None) -> list[ToolCall]:
        rests = {index: cutter.end() for index, cutter in self._arguments.items() if index != but}
        return [ToolCall(index, arguments=rest) for index, rest in rests.items() if rest]


@lru_cache(maxsize=64)
def _patterns(nonce: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What to cut from a text that goes on, with a group for what to hold back, and what to cut at the text's end.

    A model may leave out the line's end that belongs to a mark.
    """
    opening = f"(?:{_pattern(OPEN_MARK.strip(), nonce)}|{_pattern(RESULT_MARK.strip(), nonce)})"
    closing = rf"\n?{_pattern(CLOSE_MARK.strip(), nonce)}"
    digits = "|".join(nonce[:count] for count in range(len(nonce), 0, -1))
    cut_off = "|".join(mark.replace(nonce, f"(?:{digits})").replace(r"\]", "") for mark in (opening, closing))
    going_on = rf"{closing}|{opening}(?:\n|(?!\Z))|(?P<begun>{_BEGUN}\Z)"
    return re.compile(going_on), re.compile(rf"{closing}|{opening}\n?|(?:{cut_off})\Z")


def _pattern(mark: str, nonce: str) -> str:
    return re.escape(mark.format(label="\0", nonce=nonce)).replace(re.escape("\0"), "[A-Z]")
