"""How one run's answers are shown to its judge: in which order, under which letters, between which marks."""

import secrets
from collections.abc import Mapping, Sequence
from random import Random

from cappella.config.options import Settings
from cappella.ensemble import prompts
from cappella.ensemble.events import AnswerDone, Event, RoundStarted
from cappella.ensemble.run import Answer


class Candidates:
    """Fixed before any answer is there, so that the judge can read the first ones while the last are still written.

    The order is a shuffle by the run's seed, or, with `answer_order: arrival`, that in which the answers came.
    """

    def __init__(self, settings: Settings) -> None:
        # Not from the seed: whoever knows the seed must still not be able to forge a mark.
        self.nonce = secrets.token_hex(4)
        self._show_reasoning = settings.show_reasoning
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

    def shown(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers in the order in which the judge reads them."""
        by_name = {answer.name: answer for answer in answers}
        return [by_name[name] for name in self.ordered(list(by_name))]

    def text(self, answer: Answer) -> str:
        """An answer as the judge reads it."""
        return prompts.shown(answer, self._show_reasoning)


def letters(shown: Sequence[Answer]) -> Mapping[str, str]:
    """The letters under which the answers stand, and their names."""
    return dict(zip(prompts.labels(len(shown)), (answer.name for answer in shown), strict=True))
