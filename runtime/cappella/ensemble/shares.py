"""Fits answers into a reader's context: equal shares, and what short ones leave goes to long ones, whose middle is left out."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cappella.engines import waiting
from cappella.engines.base import Engine
from cappella.engines.context_size import BYTES_PER_TOKEN, IMAGE_TOKENS, estimate_tokens
from cappella.ensemble import prompts
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.fair_share import fair_share
from cappella.ensemble.run import Shortened
from cappella.errors import EngineError
from cappella.types import Message, Prompt

MAX_REPLY_SHARE = 0.5
"""The share of a context that is kept free for the reply, at most."""
DEFAULT_REPLY_SHARE = 0.25
"""The share that is kept free where nobody says how long a reply is; more for answers that are longer themselves."""
LEAST_REPLY_SHARE = 0.125
LEAST_REPLY_TOKENS = 256
"""With less room than this, and than is asked for, a reply would be cut: it is not begun."""
LEAST_ANSWER_TOKENS = 32
"""What is left of each answer at least, where the conversation alone nearly fills the context."""
NOTES_TOKENS = 512
"""Room for our own marks and notes, by which configs are checked before any tokenizer has counted them."""
SLACK_TOKENS = 96
"""Room for what is not counted: the longest of our instructions, and where texts are joined."""
ANSWER_SLACK_TOKENS = 8
MARK_TOKENS = 16
SAFETY = 0.95
MAX_COUNTS = 6
COUNT_TIMEOUT_S = 5.0
_SHORT = Prompt([{"role": "user", "content": "."}])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """How long a reply may be: `tokens` as asked for, None for about as long as an answer; `besides` what precedes it."""

    tokens: int | None = None
    besides: int = 0

    def reserved(self, context: int, longest: int) -> int:
        """The tokens to keep free for it, beside answers of which the longest has so many."""
        own = max(int(context * DEFAULT_REPLY_SHARE), longest) if self.tokens is None else self.tokens
        return min(own + self.besides, int(context * MAX_REPLY_SHARE))

    def least(self, context: int) -> int:
        """With less room it would be cut for length alone."""
        least = min(LEAST_REPLY_TOKENS, int(context * LEAST_REPLY_SHARE))
        return least if self.tokens is None else min(self.tokens, least)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Candidates as they fit. `has_room` is False if the conversation alone leaves none for a reply.

    If they had to be counted, `sizes` are the tokens of each answer, and `room` those of all that fit.
    """

    candidates: Candidates
    has_room: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)
    room: int = 0


async def fit(
    candidates: Candidates,
    prompt: Prompt,
    reader: Engine,
    reply: Reply,
    criteria: str | None = None,
    kept: Mapping[str, int] | None = None,
    scale: float = 1.0,
    own_texts: Mapping[str, str] = prompts.NO_TEXTS,
) -> Fitting:
    """The candidates, shortened where they do not fit into the reader's context beside the prompt and a reply.

    Unchanged if they fit, or if the context is unknown. `kept` has the characters at the beginning of answers that the
    reader has read already, and that stay if that is fair to the others. `scale` makes less of the room.
    """
    context, texts = reader.capabilities.context_tokens, candidates.texts
    if context is None:
        return Fitting(candidates)
    frame = _frame(candidates, prompt, criteria, own_texts)
    # No text has more tokens than bytes.
    sizes = [len(text.encode()) for text in texts]
    needed = estimate_tokens(frame) * BYTES_PER_TOKEN + sum(sizes) + _slack(len(texts))
    if scale == 1 and needed <= context - reply.reserved(context, max(sizes, default=0)):
        return Fitting(candidates)
    return await counted(reader, lambda count: _fit(candidates, frame, count, reply, kept or {}, scale, context))


async def counted(reader: Engine, fit: Callable[["Counter"], Awaitable[T]]) -> T:
    """What `fit` makes of counts by the reader's own tokenizer, or of bytes where that fails or is slow."""
    try:
        if reader.status.state == "asleep":
            await reader.count_tokens(_SHORT)  # Its wake is no part of the time that counting may take.
        async with waiting.timeout(COUNT_TIMEOUT_S):
            return await fit(Counter(reader))
    except (EngineError, TimeoutError):
        return await fit(_Bytes())


def early_share(prompt: Prompt, context: int | None, reply: Reply, answers: int) -> int | None:
    """About how many tokens of each answer fit for certain, before the answers are there; None for any number."""
    if context is None:
        return None
    room = context - reply.reserved(context, 0) - estimate_tokens(prompt) - NOTES_TOKENS - _slack(answers)
    return max(0, room) // max(1, answers)


def _frame(candidates: Candidates, prompt: Prompt, criteria: str | None, texts: Mapping[str, str]) -> Prompt:
    """All that is read but the answers. The longest of the operator's own instructions stands for all."""
    empty = [""] * len(candidates.answers)
    longest = max((text for name, text in texts.items() if name != "introduce"), key=len, default="")
    texts = {**texts, "write": longest} if len(longest) > len(prompts.WRITE) else texts
    messages = prompts.final_messages(
        prompt.messages,
        empty,
        candidates.nonce,
        criteria=criteria,
        tools=bool(prompt.tools),
        texts=texts,
        between=candidates.between,
    )
    return Prompt(messages, prompt.tools)


def _slack(answers: int) -> int:
    return SLACK_TOKENS + ANSWER_SLACK_TOKENS * answers


class Counter:
    """Counts tokens by the reader's own tokenizer."""

    def __init__(self, reader: Engine) -> None:
        self._reader = reader
        self._template_tokens: int | None = None

    async def frame(self, prompt: Prompt) -> int:
        images = sum(_images(message) for message in prompt.messages)
        return (await self._reader.count_tokens(prompt)).tokens + IMAGE_TOKENS * images

    async def text(self, text: str) -> int:
        if self._template_tokens is None:
            self._template_tokens = (await self._reader.count_tokens(_SHORT)).tokens - 1
        counted = (await self._reader.count_tokens(Prompt([{"role": "user", "content": text}]))).tokens
        return max(counted - self._template_tokens, 1 if text else 0)


class _Bytes(Counter):
    """Where nobody can count tokens: no text has more than bytes."""

    def __init__(self) -> None:
        pass

    async def frame(self, prompt: Prompt) -> int:
        return estimate_tokens(prompt)

    async def text(self, text: str) -> int:
        return len(text.encode())


def _images(message: Message) -> int:
    content = message.get("content")
    return sum(part["type"] == "image_url" for part in content) if isinstance(content, list) else 0


async def _fit(
    candidates: Candidates,
    frame: Prompt,
    count: Counter,
    reply: Reply,
    kept: Mapping[str, int],
    scale: float,
    context: int,
) -> Fitting:
    """Raises EngineError."""
    texts = dict(zip((answer.name for answer in candidates.answers), candidates.texts, strict=True))
    asked = await count.frame(frame)
    sizes = dict(zip(texts, await asyncio.gather(*map(count.text, texts.values())), strict=True))
    free = context - asked - _slack(len(texts))
    room = int((free - reply.reserved(context, max(sizes.values(), default=0))) * scale)
    # Of the reply's room the answers get some before nothing is left of them.
    least = min(LEAST_ANSWER_TOKENS * len(texts), sum(sizes.values()))
    room = max(room, min(free - reply.least(context), least), 0)
    has_room = room >= least
    limits = _limits(sizes, room, {name for name, chars in kept.items() if name in texts and chars >= len(texts[name])})
    long = [name for name in texts if sizes[name] > limits[name]]
    shortened = await asyncio.gather(
        *(_shortened(name, texts[name], sizes[name], limits[name], kept.get(name, 0), count) for name in long)
    )
    return Fitting(candidates.shortened({each.name: each for each in shortened}), has_room, sizes, room)


def _limits(sizes: Mapping[str, int], room: int, read: set[str]) -> Mapping[str, int]:
    """The most tokens of each answer. Those that were `read` stay whole if that leaves half of the share to the others."""
    fair = fair_share(list(sizes.values()), room)
    others = [size for name, size in sizes.items() if name not in read]
    rest = fair_share(others, room - sum(sizes[name] for name in read))
    if rest < min(fair, max(others, default=0)) / 2 or sum(sizes[name] for name in read) > room:
        return dict.fromkeys(sizes, fair)
    return {name: sizes[name] if name in read else rest for name in sizes}


async def _shortened(name: str, text: str, tokens: int, limit: int, kept: int, count: Counter) -> Shortened:
    """The beginning and the end of the text, half of the limit each."""
    half = max(limit - MARK_TOKENS, 0) // 2
    (head, head_tokens), (tail, tail_tokens) = await asyncio.gather(
        _most(text, tokens, half, count, from_end=False), _most(text, tokens, half, count, from_end=True)
    )
    if head < kept < len(text):
        head, head_tokens = kept, await count.text(text[:kept])
    return Shortened(name, head, min(tail, len(text) - head), head_tokens + tail_tokens, tokens)


async def _most(text: str, tokens: int, limit: int, count: Counter, from_end: bool) -> tuple[int, int]:
    """How many characters of the text's beginning or end have at most `limit` tokens, and how many they have."""
    characters = len(text)
    for _ in range(MAX_COUNTS):
        # A part of a text may have more tokens than its length tells.
        characters = int(characters * SAFETY * limit / max(tokens, 1))
        if characters == 0:
            return 0, 0
        tokens = await count.text(text[-characters:] if from_end else text[:characters])
        if tokens <= limit:
            return characters, tokens
    return 0, 0
