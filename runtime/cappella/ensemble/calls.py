"""Every engine call of one run, also of a run that comes to nothing: somebody pays for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from cappella.ensemble.run import Call
from cappella.types import Message, Usage

CHARACTERS_PER_TOKEN = 4

_calls: ContextVar[list[Call]] = ContextVar("calls")


@contextmanager
def counted() -> Iterator[Sequence[Call]]:
    """The calls that end within this context, and in the tasks that it starts."""
    calls: list[Call] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def count(call: Call) -> None:
    """Take note of a call that has ended, if anybody counts."""
    if (calls := _calls.get(None)) is not None:
        calls.append(call)


def estimated(call: Call, messages: Sequence[Message], written: str) -> Call:
    """The call with its tokens guessed from texts, where it began to answer and broke off before its engine counted."""
    if call.first_token_s is None or call.usage != Usage():
        return call
    characters = sum(len(text) for message in messages for text in _texts(message.get("content")))
    usage = Usage(prompt_tokens=_tokens(characters), completion_tokens=_tokens(len(written)))
    return replace(call, usage=usage)


def _texts(content: object) -> Iterator[str]:
    """Of a message's content, in one piece or in parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
