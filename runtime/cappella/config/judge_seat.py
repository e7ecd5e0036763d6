"""A judge of a run and how it judges, as the run's settings have it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cappella.config.seat_tools import SeatTools
from cappella.types import Sampling


@dataclass(frozen=True, slots=True)
class JudgeSeat:
    """A judge of a run, and how it judges. `texts` are the operator's own, by the names in config/own_prompts.py."""

    model: str
    sampling: Sampling = Sampling()
    criteria: str | None = None
    analysis_max_tokens: int = 1024
    texts: Mapping[str, str] = field(default_factory=dict)
    own_knowledge: bool = False
    tools: SeatTools = SeatTools()
