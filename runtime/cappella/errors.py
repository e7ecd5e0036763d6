"""The tree of all errors that Cappella raises; `gateway/errors.py` has the one table from errors to HTTP.

CappellaError
├── ConfigError            the config, or a file that it names, is wrong; the command exits with code 2
│   ├── Mistakes           several of these, found at once
│   └── DoesNotFit         the models need more memory than the machine has
├── RequestError           the client's request is wrong
│   ├── UnknownModel
│   ├── UnknownRun
│   ├── UnknownEngine
│   └── ContextLengthExceeded
├── EngineError            one call to one engine failed; for a panel member it becomes a Failure
│   ├── EngineNotReady     the engine is loading, restarting or has given up
│   ├── EngineRejected     the engine refused the call
│   │   └── EngineContextExceeded
│   ├── EngineBroke        the connection, process or stream broke, or the reply was garbage
│   ├── EngineUnusable     the stream ended normally but its content is unusable
│   │   └── EngineOnlyThought  the model thought, and wrote no answer
│   ├── EngineOverBudget   the run's remaining token budget is too small for the call
│   └── EngineOverdue      a call of a batch was cut at the run's deadline
├── JudgeFailed            the judge failed, and no member answer may replace its answer
├── ModelNotReady          too few engines are up to start a run
├── Overloaded             the queue is full
├── ShuttingDown           the server is stopping, or cancelled the request because of that
├── ActionRefused          the engine cannot do an operator action in its current state
│   └── RunsElsewhere        Cappella does not run this engine: its server is remote
├── ReloadFailed           the new config could not be applied
├── Unauthorized           no API key, or an unknown one
├── Forbidden              the key does not permit this
├── RateLimited            the key has reached its limit for this minute
├── AuditUnavailable       the audit log is required and cannot be written
├── RunsUnavailable        the file of kept responses cannot be read or written
├── BatchesUnavailable     the folder of batches cannot be read or written
├── BatchRefused           the batch cannot go on, or cannot be done with what was asked, as it is now
└── PanelFailed            the panel gave too few answers; carries its answers and failures
    ├── InsufficientQuorum   too few answers came back
    └── DeadlineExceeded     the deadline passed and there is nothing to return
"""

from collections.abc import Sequence


class CappellaError(Exception):
    """Base class; `str(error)` is a plain sentence for people."""


class ConfigError(CappellaError):
    """`place` is the location (file:line: key), `problem` what is wrong, `hint` how to fix it."""

    def __init__(self, place: str, problem: str, hint: str) -> None:
        self.place = place
        self.problem = problem
        self.hint = hint
        super().__init__(f"{place}: {_sentence(problem)} {_sentence(hint)}")


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


class Mistakes(ConfigError):
    """Several mistakes; `str(error)` is the first one, and says how many more there are."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = errors
        first, more = errors[0], len(errors) - 1
        super().__init__(first.place, first.problem, first.hint)
        self.args = (f"{first} {more} more mistake{'s' * (more > 1)}: `cappella check` names all.",)


def raise_all(errors: Sequence[ConfigError]) -> None:
    """Raises what was found: nothing, one error or several."""
    if errors:
        raise errors[0] if len(errors) == 1 else Mistakes(errors)


class DoesNotFit(ConfigError):
    """`hint` lists changes with which the plan would fit; `pastes` are those that a config can make, as YAML."""

    def __init__(self, place: str, problem: str, hint: str, pastes: Sequence[str] = ()) -> None:
        super().__init__(place, problem, hint)
        self.pastes = pastes


class RequestError(CappellaError):
    """`param` is the name of the invalid field; `code` is the machine-readable reason."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


MAX_NAME_CHARS = 256
"""Of a name that does not exist: it is the client's, who may send one of megabytes."""


class UnknownModel(RequestError):
    def __init__(self, model: str, known: Sequence[str], param: str = "model") -> None:
        super().__init__(
            f"There is no model {model[:MAX_NAME_CHARS]!r} here. Known: {', '.join(known)}.", param, "model_not_found"
        )


class UnknownRun(RequestError):
    """No such run, or the caller may not see it."""


class UnknownEngine(RequestError):
    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no engine {name!r} here. Known: {', '.join(known)}.", "name", "engine_not_found")


class ContextLengthExceeded(RequestError):
    def __init__(self, message: str) -> None:
        super().__init__(message, "messages", "context_length_exceeded")


class EngineError(CappellaError):
    """`reason` is the machine-readable reason; `status_code` is the HTTP status of the engine, or the closest one."""

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


class EngineGaveUp(EngineBroke):
    """The engine ended one answer in the middle, and is well otherwise."""


class EngineUnusable(EngineError):
    """`reason` is one of empty_answer, invalid_format, judge_not_valid_json, judge_schema_mismatch."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class EngineOnlyThought(EngineUnusable):
    """The reply is thoughts alone."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "empty_answer")


class EngineOverBudget(EngineError):
    """The call was not made, because it would exceed the run's `max_total_tokens`."""

    reason = "budget"
    status_code = 400


class EngineOverdue(EngineError):
    """The run's deadline passed while the call was at work."""

    reason = "deadline"
    status_code = 504


class ToolServerLost(CappellaError):
    """A tool server cannot be started, has ended, or does not keep to its protocol. Its supervision starts it again."""


class ToolCallFailed(CappellaError):
    """A tool server gave no result of a call; the model is told why."""


class JudgeFailed(CappellaError):
    """`str(error)` describes the judge's failure."""


class ModelNotReady(CappellaError):
    """`retry_after_s` is when a client should retry."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(CappellaError):
    """`retry_after_s` is when a client should retry."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MemoryFull(Overloaded):
    """There is no memory for another request's body now."""


class QueueTimeout(CappellaError):
    """A run's deadline passed before the run began."""


class ShuttingDown(CappellaError):
    pass


class ActionRefused(CappellaError):
    def __init__(self, name: str, state: str, action: str, actions: Sequence[str]) -> None:
        why = f"Possible now: {', '.join(actions)}." if actions else "Another action is in progress."
        super().__init__(f"Cannot {action} {name} while it is {state}. {why}")


class RunsElsewhere(ActionRefused):
    """The action is for a remote model, whose server Cappella does not run."""

    def __init__(self, name: str) -> None:
        CappellaError.__init__(self, f"{name} runs on a remote server, which Cappella neither starts nor stops.")


class ReloadFailed(CappellaError):
    pass


class Unauthorized(CappellaError):
    pass


class KeysUnavailable(CappellaError):
    """The key file is missing, damaged or locked."""


class Forbidden(CappellaError):
    """`code` is the machine-readable reason."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class RateLimited(Overloaded):
    pass


class BatchesUnavailable(CappellaError):
    """The folder of batches cannot be read or written: the disk may be full."""


class BatchRefused(CappellaError):
    """Its models have other weights than at its beginning, or its state does not permit what was asked."""


class AuditUnavailable(CappellaError):
    pass


class RunsUnavailable(CappellaError):
    """The file of runs and responses cannot be read or written."""


def cause(error: Exception) -> str:
    """What went wrong, for a sentence that names the file itself: an OSError's own text would name it once more."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
