"""Checks that a round of the panel gave enough answers, and names the error if it did not."""

from collections.abc import Callable, Mapping

from cappella.engines import refusals
from cappella.ensemble.errors import DeadlineExceeded, InsufficientQuorum
from cappella.ensemble.run import Failure, Panel
from cappella.errors import ContextLengthExceeded, EngineContextExceeded, EngineOverBudget, EngineRejected, RequestError

# Failure reasons that only another request can avoid, each with the error to raise.
_REQUEST_ERRORS: Mapping[str, Callable[[str, str], RequestError]] = {
    EngineContextExceeded.reason: lambda names, said: ContextLengthExceeded(
        f"The prompt is longer than the context of {names}. {said}"
    ),
    EngineOverBudget.reason: lambda names, _: RequestError(
        f"max_total_tokens is too small for this prompt and {names}.", "fusion.max_total_tokens", "budget_too_small"
    ),
}
UNREACHABLE = "quorum_unreachable"
"""The reason of a member that was cut because the others' failures left no quorum."""
_HOW_TO_WAIT = "Raise round_timeout_seconds, and deadline_seconds if that is shorter (in a config both end in _s)."


def require_quorum(panel: Panel, quorum: int) -> None:
    """Raises ContextLengthExceeded, RequestError, DeadlineExceeded or InsufficientQuorum below the quorum.

    The first three name the one cause without which the quorum would have been met: of a refusal, in the engine's words.
    """
    if len(panel.answers) >= quorum:
        return
    # Without the cause nobody would have been cut for the others' failures.
    possible = len(panel.answers) + sum(f.reason == UNREACHABLE for f in panel.failures)
    for reason, error in _REQUEST_ERRORS.items():
        failures = [f for f in panel.failures if f.reason == reason]
        if failures and possible + len(failures) >= quorum:
            # The engine's own words say how long the prompt was and may be.
            raise error(", ".join(f.name for f in failures), failures[0].error)
    refused = [f for f in panel.failures if _is_refused(f)]
    if refused and possible + len(refused) >= quorum:
        raise RequestError(f"{refused[0].name} refused this request: {refused[0].error}")
    late = [f.name for f in panel.failures if f.reason == "deadline"]
    answered = f"{len(panel.answers)} of {len(panel.answers) + len(panel.failures)} members answered"
    if len(panel.answers) + len(late) >= quorum:
        message = f"{answered} in time, the quorum is {quorum}; late: {', '.join(late)}. {_HOW_TO_WAIT}"
        raise DeadlineExceeded(message, panel.answers, panel.failures)
    causes = "; ".join(f"{f.name}: {f.error}" for f in panel.failures)
    raise InsufficientQuorum(f"{answered}, the quorum is {quorum}. {causes}", panel.answers, panel.failures)


def _is_refused(failure: Failure) -> bool:
    return failure.reason == EngineRejected.reason and refusals.may_blame_request(failure.status_code)
