"""Runs that failed because the panel gave too little; each error carries what the panel did give."""

from __future__ import annotations

from collections.abc import Sequence

from cappella.errors import CappellaError


class PanelFailed(CappellaError):
    """The panel gave too little; what it did give is attached."""

    def __init__(self, message: str, answers: Sequence[Answer], failures: Sequence[Failure]) -> None:
        super().__init__(message)
        self.answers = answers
        self.failures = failures


class InsufficientQuorum(PanelFailed):
    pass


class DeadlineExceeded(PanelFailed):
    pass
