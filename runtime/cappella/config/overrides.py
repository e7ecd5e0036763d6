"""What one request changes of its ensemble."""

from dataclasses import dataclass

from cappella.config.options import GivenAnswer, Options
from cappella.types import Sampling

_ONLY_SHOWN = {"progress"}
"""Options that change what is shown of a run, and not the run."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Changes that one request makes to its ensemble; None keeps the configured value."""

    preset: str | None = None
    panel: tuple[str, ...] | None = None
    judge: str | None = None
    options: Options = Options()
    panel_sampling: Sampling = Sampling()
    model_sampling: tuple[tuple[str, Sampling], ...] = ()
    answers: tuple[GivenAnswer, ...] = ()
    """Candidates that exist already; a member with one is not asked, but in later rounds."""
    outer: str | None = None
    """The model that was called, with the panel as its tool: the judge unless one is set, and the gate's model."""
    panel_required: bool = False
    """Whether no gate may leave the panel out."""

    @property
    def beyond_preset(self) -> bool:
        """Whether they change more than the preset, which the operator has configured."""
        others = self.panel is not None or self.judge is not None or self.model_sampling or self.answers
        return bool(others or self.options.given().keys() - _ONLY_SHOWN or self.panel_sampling.given())
