"""Candidate answers as the judge and members see them: ordered, with letters for names, and fenced by a nonce."""

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from random import Random

from cappella.config.options import Settings
from cappella.ensemble import prompts
from cappella.ensemble.between import Between
from cappella.ensemble.events import AnswerDone, Event, RoundStarted
from cappella.ensemble.evidence import LOOK_UP, Backing, evidence
from cappella.ensemble.run import Answer, Shortened
from cappella.types import Message

_secret: ContextVar[bytes | None] = ContextVar("secret of marks", default=None)


@contextmanager
def marks_from(secret: bytes) -> Iterator[None]:
    """Draws the nonces of runs in this context from `secret`: a run that is made again has the same prompts."""
    token = _secret.set(secret)
    try:
        yield
    finally:
        _secret.reset(token)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Anonymous answers in the order in which one reader sees them.

    Each stands between marks that carry the `nonce`, which no member has seen and so cannot forge. `parts` has what is
    left of each answer which is longer than its share of the reader's context. `backings` are the passages that they rest on,
    each with at most `passage_bytes`; `lookups` are the turns in which the reader called tools of its own. Of a draft among
    the answers, `made_of` names those that it was made of.
    """

    answers: Sequence[Answer]
    nonce: str
    show_reasoning: bool = False
    parts: Mapping[str, Shortened] = field(default_factory=dict)
    backings: Sequence[Backing] = ()
    passage_bytes: int | None = None
    lookups: Sequence[Message] = ()
    made_of: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def shuffled(cls, answers: Sequence[Answer], seed: int) -> "Candidates":
        """The answers in an order drawn from the seed, with a fresh nonce."""
        shuffled = list(answers)
        Random(seed).shuffle(shuffled)
        return cls(shuffled, fresh_nonce(*(answer.content for answer in shuffled)))

    @property
    def labels(self) -> Mapping[str, str]:
        """Each letter, and the name of the answer that it stands for."""
        return dict(zip(prompts.labels(len(self.answers)), (answer.name for answer in self.answers), strict=True))

    @property
    def texts(self) -> list[str]:
        return [
            prompts.answer_text(answer, self.show_reasoning, self.parts.get(answer.name)) for answer in self.answers
        ]

    @property
    def between(self) -> Between:
        """What the reader has between the answers and an instruction."""
        found = evidence(self.backings, self.labels, self.nonce, self.passage_bytes, self.made_of)
        return Between([*found, LOOK_UP] if self.lookups else found, self.lookups)

    def shortened(self, parts: Mapping[str, Shortened]) -> "Candidates":
        """The same answers, with these parts left of them; those that are not named stay whole."""
        return replace(self, parts=parts)

    def only(self, answers: Sequence[Answer]) -> "Candidates":
        """A subset, in the same order."""
        return replace(self, answers=[answer for answer in self.answers if answer in answers])

    @property
    def balanced(self) -> "list[Candidates]":
        """Orders in which every answer stands in every place once."""
        answers = list(self.answers)
        return [replace(self, answers=answers[first:] + answers[:first]) for first in range(len(answers))]

    def letters_of(self, names: Sequence[str]) -> list[str]:
        """The letters of the named answers; names that are no candidates are left out."""
        letters = {name: letter for letter, name in self.labels.items()}
        return [letters[name] for name in names if name in letters]


class Ordering:
    """The order in which a run's judge reads the answers.

    A shuffle by the run's seed, or with `answer_order: arrival` the order of arrival. Both are known before all answers
    are there, so that the judge can prefill the first ones while the last are still being generated.
    """

    def __init__(self, settings: Settings) -> None:
        self.nonce = fresh_nonce()
        self.show_reasoning = settings.show_reasoning
        self._by_arrival = settings.answer_order == "arrival"
        self._order: list[str] = [] if self._by_arrival else list(settings.answer_names)
        Random(settings.seed).shuffle(self._order)

    def on_event(self, event: Event) -> None:
        """Note the order of arrival; a new round begins a new order."""
        if self._by_arrival and isinstance(event, RoundStarted):
            self._order.clear()
        if self._by_arrival and isinstance(event, AnswerDone):
            self._order.append(event.answer.name)

    def ordered(self, names: Sequence[str]) -> list[str]:
        """The names in reading order; names without a place yet come last, as given."""
        return [name for name in self._order if name in names] + [name for name in names if name not in self._order]

    def candidates(self, answers: Sequence[Answer]) -> Candidates:
        """The answers as the judge reads them."""
        by_name = {answer.name: answer for answer in answers}
        return Candidates([by_name[name] for name in self.ordered(list(by_name))], self.nonce, self.show_reasoning)


def fresh_nonce(*texts: str) -> str:
    """Eight random hex digits, or with a secret those of the texts that they mark: nobody can know them before.

    Not drawn from the seed, since clients may know the seed and could forge a mark.
    """
    secret = _secret.get()
    return (
        secrets.token_hex(4) if secret is None else hmac.digest(secret, repr(texts).encode(), hashlib.sha256).hex()[:8]
    )
