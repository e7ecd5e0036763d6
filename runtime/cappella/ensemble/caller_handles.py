"""Handles such as S3 that the request brings along: no source of its run has one of them, so that none is taken for another."""

from collections.abc import Sequence
from dataclasses import dataclass

from cappella.config.options import Settings
from cappella.ensemble.citation_text import handles_in
from cappella.ensemble.prompts import text_of
from cappella.types import Message


@dataclass(frozen=True, slots=True)
class CallerHandles:
    """`earlier` stand in answers to earlier turns, of whose sources this run knows nothing; the caller wrote those that are `own`."""

    earlier: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.earlier | self.own


def caller_handles(messages: Sequence[Message], settings: Settings) -> CallerHandles:
    """The handles in a conversation and in the answers that the request gives; none where nothing can be found."""
    members, judges = [seat.tools for seat in settings.panel], [seat.tools for seat in settings.next_judges]
    tools = [*members, settings.judge_tools, *judges]
    if not any(each.servers for each in tools):
        return CallerHandles()
    earlier = [text_of(message) for message in messages if message["role"] == "assistant"]
    own = [text_of(message) for message in messages if message["role"] != "assistant"]
    own += [answer.content for answer in settings.answers]
    return CallerHandles(_handles(earlier), _handles(own))


def _handles(texts: Sequence[str]) -> frozenset[str]:
    return frozenset().union(*map(handles_in, texts))
