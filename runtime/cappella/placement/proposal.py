"""Chooses a panel and a judge among models so that they fit a machine, and says by which rules.

A panel has models of different families and of like strength. Its judge is not weaker than its strongest member. Strength is
the number of parameters. Of all panels that fit, one with more families comes first, then the one with the strongest member.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from cappella.placement.machine import Machine
from cappella.placement.planner import Plan

PANEL = 3
"""Members of a panel that is chosen: with three the odd one out shows, and more gain less each."""
LIKE = 1 / 3
"""The least strength of a member, as a share of the strongest one's."""
MIN_JUDGE_TOKENS = 8192
"""The context that a judge should have, for the conversation, the answers and its own."""
MAX_TRIES = 40


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be chosen. `weights` is its name in a config; `is_here` whether its files are on this machine.

    `maker` published it, `architecture` is its `model_type`.
    """

    weights: str
    maker: str
    architecture: str
    parameters: int
    size_bytes: int
    context_tokens: int
    takes_tools: bool
    is_here: bool

    @property
    def family(self) -> str:
        """The name of the architecture without its version: those of one family learned from each other."""
        return re.split(r"[^a-z]", self.architecture.lower())[0] or self.maker

    def is_kin(self, other: "Candidate") -> bool:
        """Whether both are of one maker, or of one family."""
        return self.family == other.family or self.maker == other.maker != ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A panel and its judge; a panel of one model gives several samples."""

    panel: Sequence[Candidate]
    judge: Candidate

    @property
    def samples(self) -> int:
        return PANEL if len(self.panel) == 1 else 1

    @property
    def models(self) -> list[Candidate]:
        return list(dict.fromkeys((*self.panel, self.judge)))

    @property
    def reason(self) -> str:
        """Why these, in a sentence or two."""
        families = list(dict.fromkeys(each.family for each in self.panel))
        if len(self.panel) == 1:
            panel = (
                f"One model answers {self.samples} times: no other is of like strength, of another family, and fits."
            )
        else:
            panel = f"{len(self.panel)} models of {len(families)} families ({', '.join(families)}), of like strength."
        is_member = self.judge in self.panel
        judge = "the strongest member; its weights are loaded once" if is_member else "stronger than any member"
        return f"{panel} The judge is {judge}."


@dataclass(frozen=True, slots=True)
class Proposal:
    """A choice, and its plan on the machine."""

    choice: Choice
    plan: Plan


def choose(candidates: Sequence[Candidate], machine: Machine, plan: Callable[[Choice], Plan | None]) -> Proposal | None:
    """The first choice by the rules for which `plan` finds room; None if there is none."""
    room_bytes = sum(device.total_bytes for device in machine.devices)
    sized = (each for each in _choices(candidates) if sum(model.size_bytes for model in each.models) < room_bytes)
    for choice in islice(sized, MAX_TRIES):
        if found := plan(choice):
            return Proposal(choice, found)
    return None


def of_these(panel: Sequence[Candidate], judge: Candidate | None) -> Choice:
    """The choice of somebody who names the members; without a judge, the strongest one that has a context for it."""
    return Choice(panel, judge or next(_judges(panel, panel)))


def _choices(candidates: Sequence[Candidate]) -> Iterator[Choice]:
    """Every panel by the rules with each judge, the best first."""
    by_strength = sorted(candidates, key=lambda each: -each.parameters)
    panels = [_panel(by_strength[at:]) for at in range(len(by_strength))]
    for size in range(PANEL, 0, -1):
        for panel in (each[:size] for each in panels if len(each) >= size):
            for judge in _judges(by_strength, panel):
                yield Choice(panel, judge)


def _panel(by_strength: Sequence[Candidate]) -> list[Candidate]:
    """The strongest model, and the strongest one of each other family that is like it."""
    strongest = by_strength[0]
    panel = [strongest]
    for each in by_strength[1:]:
        is_like = each.parameters >= strongest.parameters * LIKE
        if is_like and not any(each.is_kin(member) for member in panel):
            panel.append(each)
    return panel[:PANEL]


def _judges(candidates: Sequence[Candidate], panel: Sequence[Candidate]) -> Iterator[Candidate]:
    """The models that are not weaker than any member, the strongest first; those with too short a context last."""
    strongest = max(each.parameters for each in panel)
    fit = [each for each in candidates if each.parameters >= strongest]
    yield from sorted(fit, key=lambda each: (each.context_tokens < MIN_JUDGE_TOKENS, -each.parameters))
