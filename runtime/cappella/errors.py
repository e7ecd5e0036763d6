"""Every error that Cappella raises. It knows nothing of HTTP: `gateway/app.py` holds the one table that does.

CappellaError
├── ConfigError            the config, or what it points at, is wrong; the command ends with exit code 2
│   └── DoesNotFit         the models need more memory than there is
├── RequestError           the client's request is wrong
│   ├── UnknownModel
│   ├── UnknownRun
│   ├── UnknownEngine
│   └── ContextLengthExceeded
├── EngineError            one call to one engine failed; inside a panel this becomes a Failure
│   ├── EngineNotReady     no engine to call: it loads, restarts or gave up
│   ├── EngineRejected     the engine understood the call and refused it
│   │   └── EngineContextExceeded
│   ├── EngineBroke        the connection, the process or the stream died, or sent garbage
│   ├── EngineUnusable     the stream ended well and holds nothing that can be used
│   └── EngineOverBudget   what is left of the run's tokens is too little to make the call
├── JudgeFailed            the judge gave nothing, and no member's answer may stand in for it
├── ModelNotReady          too few engines are up to begin a run
├── Overloaded             as many wait as may
├── ShuttingDown           the server is about to stop, or has cut what was under way
├── ActionRefused          an engine cannot do what an operator asks of it, as it is now
├── ReloadFailed           another config could not be put in the place of the one that is served
├── Unauthorized           no key, or none that is known
├── Forbidden              a key that may not do this
├── RateLimited            a key that has done enough for now
├── AuditUnavailable       nothing may run that is not logged, and the log cannot be written
└── PanelFailed            the panel gave too little; carries the answers and failures there are
    ├── InsufficientQuorum   too few answers came back
    └── DeadlineExceeded     the time ran out and there is nothing to return
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

# For types alone: who installs a bundle has nothing but the standard library.
if TYPE_CHECKING:
    pass


class CappellaError(Exception):
    """The root; `str()` of any of them is one plain sentence for a person."""


class ConfigError(CappellaError):
    """`place` says where (file:line: key), `problem` what, `mend` how to put it right."""

    def __init__(self, place: str, problem: str, mend: str) -> None:
        self.place = place
        self.problem = problem
        self.mend = mend
        super().__init__(f"{place}: {problem}. {mend}{'' if mend.endswith('?') else '.'}")


class DoesNotFit(ConfigError):
    """`mend` names changes that were planned, and would fit."""


class RequestError(CappellaError):
    """`param` names the field that is wrong; `code` is a word for programs."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class UnknownModel(RequestError):
    def __init__(self, model: str, known: Sequence[str], param: str = "model") -> None:
        super().__init__(f"There is no model {model!r} here. Known: {', '.join(known)}.", param, "model_not_found")


class UnknownRun(RequestError):
    """There is none for who asks."""


class UnknownEngine(RequestError):
    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no engine {name!r} here. Known: {', '.join(known)}.", "name", "engine_not_found")


class ContextLengthExceeded(RequestError):
    def __init__(self, message: str) -> None:
        super().__init__(message, "messages", "context_length_exceeded")


class EngineError(CappellaError):
    """`reason` is a word for programs, `status_code` what the engine answered or would have answered."""

    reason = "engine_error"
    status_code = 502


class EngineNotReady(EngineError):
    reason = "not_ready"
    status_code = 503


class EngineRejected(EngineError):
    reason = "rejected"

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class EngineContextExceeded(EngineRejected):
    reason = "context_length_exceeded"


class EngineBroke(EngineError):
    reason = "engine_broke"


class EngineUnusable(EngineError):
    """`reason` says in what way: empty_answer, invalid_format, judge_not_valid_json, judge_schema_mismatch."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class EngineOverBudget(EngineError):
    """The call was not made: the run's tokens would not have been enough for it."""

    reason = "budget"
    status_code = 400


class JudgeFailed(CappellaError):
    """`str()` says what the judge's own failure was."""


class ModelNotReady(CappellaError):
    """`retry_after_s` is a fair moment to ask again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(CappellaError):
    """`retry_after_s` is a fair moment to ask again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDown(CappellaError):
    pass


class ActionRefused(CappellaError):
    def __init__(self, name: str, state: str, action: str, actions: Sequence[str]) -> None:
        may = " or ".join(actions) or "nothing, while an earlier wish is carried out"
        super().__init__(f"{name} is {state}: {action!r} cannot be asked of it now. What can: {may}.")


class ReloadFailed(CappellaError):
    pass


class Unauthorized(CappellaError):
    pass


class Forbidden(CappellaError):
    """`code` is a word for programs."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class RateLimited(Overloaded):
    pass


class AuditUnavailable(CappellaError):
    pass
