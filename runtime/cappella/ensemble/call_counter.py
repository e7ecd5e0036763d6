"""Counts every engine call of a run, also of a run that fails: its tokens were spent all the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from cappella.ensemble.run import Call
from cappella.types import Message, Usage

CHARACTERS_PER_TOKEN = 4
"""A rough estimate for texts that no tokenizer has counted."""

_calls: ContextVar[list[Call]] = ContextVar("calls")


@contextmanager
def count_calls() -> Iterator[Sequence[Call]]:
    """Collects the calls that end within this context, and in the tasks started there."""
    calls: list[Call] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def add_call(call: Call) -> None:
    """Record a call that has ended; does nothing outside `count_calls`."""
    if (calls := _calls.get(None)) is not None:
        calls.append(call)


def with_estimated_usage(call: Call, messages: Sequence[Message], output: str) -> Call:
    """The call with its tokens estimated from its texts, if it broke off before the engine reported its usage."""
    if call.first_token_s is None or call.usage != Usage():
        return call
    characters = sum(len(text) for message in messages for text in _texts(message.get("content")))
    usage = Usage(prompt_tokens=_tokens(characters), completion_tokens=_tokens(len(output)))
    return replace(call, usage=usage)


def _texts(content: object) -> Iterator[str]:
    """The texts of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
