"""How answers are shown to whoever compares them: in which order, under which letters, between which marks."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from cappella.config.options import Settings
from cappella.ensemble import prompts
from cappella.ensemble.events import AnswerDone, Event, RoundStarted
from cappella.ensemble.run import Answer


@dataclass(frozen=True, slots=True)
class Candidates:
    """Answers as one reader sees them: in this order, anonymous, and fenced by a key that no member has seen."""

    shown: Sequence[Answer]
    nonce: str
    show_reasoning: bool = False

    @classmethod
    def shuffled(cls, answers: Sequence[Answer], seed: int) -> "Candidates":
        """In an order that the seed decides, behind a fresh key."""
        shown = list(answers)
        Random(seed).shuffle(shown)
        return cls(shown, fresh_nonce())

    @property
    def labels(self) -> Mapping[str, str]:
        """The letters under which the answers stand, and their names."""
        return dict(zip(prompts.labels(len(self.shown)), (answer.name for answer in self.shown), strict=True))

    @property
    def texts(self) -> list[str]:
        return [prompts.shown(answer, self.show_reasoning) for answer in self.shown]

    def only(self, answers: Sequence[Answer]) -> "Candidates":
        """Those alone, in the same order."""
        return replace(self, shown=[answer for answer in self.shown if answer in answers])

    def reversed(self) -> "Candidates":
        return replace(self, shown=self.shown[::-1])

    def letters_of(self, names: Sequence[str]) -> list[str]:
        """The letters of those names that are shown."""
        letters = {name: letter for letter, name in self.labels.items()}
        return [letters[name] for name in names if name in letters]


class Ordering:
    """In which order a run's judge reads the answers.

    Fixed before any answer is there, so that the judge can read the first ones while the last are still written: a
    shuffle by the run's seed, or, with `answer_order: arrival`, the order in which the answers came.
    """

    def __init__(self, settings: Settings) -> None:
        self.nonce = fresh_nonce()
        self.show_reasoning = settings.show_reasoning
        self._by_arrival = settings.answer_order == "arrival"
        self._order: list[str] = [] if self._by_arrival else list(settings.answer_names)
        Random(settings.seed).shuffle(self._order)

    def hear(self, event: Event) -> None:
        """Take note of who arrives in the round that counts, the last one."""
        if self._by_arrival and isinstance(event, RoundStarted):
            self._order.clear()
        if self._by_arrival and isinstance(event, AnswerDone):
            self._order.append(event.answer.name)

    def ordered(self, names: Sequence[str]) -> list[str]:
        """Those of the names that have a place, in their order; then those that have none yet, as given."""
        return [name for name in self._order if name in names] + [name for name in names if name not in self._order]

    def candidates(self, answers: Sequence[Answer]) -> Candidates:
        """The answers as the judge reads them."""
        by_name = {answer.name: answer for answer in answers}
        return Candidates([by_name[name] for name in self.ordered(list(by_name))], self.nonce, self.show_reasoning)


def fresh_nonce() -> str:
    """A key for the marks around answers. Not from the seed: whoever knows that must not be able to forge a mark."""
    return secrets.token_hex(4)
