"""What is known of a request that was let in, once it has ended, however it ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from cappella.auth.keys import Key
from cappella.config.options import Settings
from cappella.ensemble.errors import PanelFailed
from cappella.ensemble.run import Call, Failure, Run
from cappella.types import Json, Prompt, Usage


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A request to an ensemble. `status` is the run's own, `cancelled`, or the name of the error that ended it.

    `calls` are all of the run's, also where there is no `run`; of those that were broken off, tokens are an estimate.
    """

    run_id: str | None
    key: Key | None
    prompt: Prompt
    settings: Settings
    status: str
    run: Run | None
    error: Exception | None
    calls: Sequence[Call]
    total_s: float

    @property
    def failures(self) -> Sequence[Failure]:
        """Who failed, also in a run that came to nothing by it."""
        if self.run:
            return self.run.failures
        return self.error.failures if isinstance(self.error, PanelFailed) else ()


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What was said to one model alone. `status` is `ok`, `cancelled`, or the name of the error or HTTP status.

    `asked` is the request's body, `reply` the last megabytes of the reply's.
    """

    key: Key | None
    model: str
    asked: Json
    status: str
    usage: Usage
    reply: bytes
    total_s: float
