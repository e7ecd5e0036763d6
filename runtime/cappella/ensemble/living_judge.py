"""Which of an ensemble's judges judges a run: the first in the list that is up."""

from collections.abc import Mapping

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble.run import FailedJudge
from cappella.errors import EngineError, EngineNotReady


def is_up(engines: Mapping[str, Engine], model: str) -> bool:
    return engines[model].status.accepts_requests


def with_living_judge(
    engines: Mapping[str, Engine], settings: Settings, error: EngineError | None = None
) -> tuple[Settings, list[FailedJudge]]:
    """The settings with the first judge that is up, and those before it; unchanged if none is.

    With an `error` the first one is not asked: it has just failed with it.
    """
    if error is None and is_up(engines, settings.judge):
        return settings, []
    failed, others = [_failed(engines, settings.judge, error)], settings
    while others.next_judges:
        others = others.with_next_judge
        if is_up(engines, others.judge):
            return others, failed
        failed.append(_failed(engines, others.judge, None))
    return settings, []


def _failed(engines: Mapping[str, Engine], model: str, error: EngineError | None) -> FailedJudge:
    error = error or EngineNotReady(f"{model} is {engines[model].status.state}")
    return FailedJudge(model, error.reason, str(error))
