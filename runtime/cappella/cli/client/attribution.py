"""Attributes each passage of the answer to members, by words in common."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SHARE = 0.6
"""A member supports a passage if its answer has at least this share of the words, and all of the numbers."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence or line of an answer; `shares` holds, for each member, the share of its words that the member used.

    The share is 0 for a member that lacks one of the passage's numbers.
    """

    text: str
    shares: Mapping[str, float]

    @property
    def supporters(self) -> list[tuple[str, float]]:
        """Supporting members, the best first."""
        members = [(name, share) for name, share in self.shares.items() if share >= SHARE]
        return sorted(members, key=lambda member: -member[1])


def passages(answer: str, answers: Mapping[str, str]) -> list[Passage]:
    """Every sentence of the answer that has words. `answers` holds the members' answers by name."""
    known = {name: _words(text) for name, text in answers.items()}
    out = []
    for text in _sentences(answer):
        if own := _words(text):
            out.append(Passage(text, {name: _share(own, words) for name, words in known.items()}))
    return out


def _share(own: frozenset[str], words: frozenset[str]) -> float:
    lacks_number = any(_is_number(word) for word in own - words)
    return 0.0 if lacks_number else len(own & words) / len(own)


def _is_number(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def _sentences(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [part for line in lines if line for part in re.split(r"(?<=[.!?])\s+(?=\S)", line)]


def _words(text: str) -> frozenset[str]:
    """Words of more than two letters, and everything with a digit."""
    tokens = re.findall(r"\w+(?:[.,]\d+)*", text.lower())
    return frozenset(word for word in tokens if len(word) > 2 or _is_number(word))
