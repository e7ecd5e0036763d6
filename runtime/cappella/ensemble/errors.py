"""Errors of runs whose panel gave too few answers. Each carries the answers and failures that there are."""

from collections.abc import Sequence

from cappella.ensemble.run import Answer, Failure
from cappella.errors import CappellaError


class PanelFailed(CappellaError):
    """The panel missed its quorum; carries its answers and failures."""

    def __init__(self, message: str, answers: Sequence[Answer], failures: Sequence[Failure]) -> None:
        super().__init__(message)
        self.answers = answers
        self.failures = failures


class InsufficientQuorum(PanelFailed):
    """Too many members failed."""


class DeadlineExceeded(PanelFailed):
    """Too many members were still running when the round ended."""
