"""Candidates that the request brings along: named, seated, and read as answers of the first round."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cappella.config.options import GivenAnswer, Seat
from cappella.ensemble.run import Answer, Call, Failure, Panel
from cappella.ensemble.structured import formats
from cappella.errors import RequestError
from cappella.types import OutputFormat, Usage


def seated(
    panel: Sequence[Seat], given: Sequence[GivenAnswer], field: str = "fusion.answers"
) -> tuple[tuple[Seat, ...], tuple[GivenAnswer, ...]]:
    """The seats, each with as many samples as it has given answers, and the answers under unique names.

    Several of one name are told apart as samples are: `name~1`, `name~2`. Raises RequestError, which names the `field`
    that they came in, where that is a name already.
    """
    seat_of = {name: seat.name for seat in panel for name in seat.answer_names}
    owners = [seat_of.get(answer.name, answer.name) for answer in given]
    counts, numbers = Counter(owners), Counter[str]()
    named = []
    for answer, owner in zip(given, owners, strict=True):
        numbers[owner] += 1
        named.append(replace(answer, name=f"{owner}~{numbers[owner]}" if counts[owner] > 1 else owner))
    for name, count in Counter(answer.name for answer in named).items():
        if count > 1:
            raise RequestError(f"Two of the answers would have the name {name}.", field)
    return tuple(replace(seat, samples=counts[seat.name] or seat.samples) for seat in panel), tuple(named)


async def read(given: Sequence[GivenAnswer], output_format: OutputFormat | None) -> list[Answer | Failure]:
    """Each as an answer that cost nothing; a failure if it violates the format that members' answers must have."""
    outcomes: list[Answer | Failure] = []
    for each in given:
        if violation := await formats.violation(output_format, each.content):
            outcomes.append(Failure(each.name, "invalid_format", violation, 502, each.content))
        else:
            call = Call("panel", each.name, Usage(), time.monotonic(), None, 0.0)
            outcomes.append(Answer(each.name, each.content, "stop", call))
    return outcomes


def joined(given: Sequence[Answer | Failure], asked: Panel, names: Sequence[str]) -> Panel:
    """One round of both, in the order of the names."""
    outcomes = {outcome.name: outcome for outcome in (*given, *asked.answers, *asked.failures)}
    ordered = [outcomes[name] for name in names if name in outcomes]
    return Panel(
        [outcome for outcome in ordered if isinstance(outcome, Answer)],
        [outcome for outcome in ordered if isinstance(outcome, Failure)],
        asked.calls,
    )
