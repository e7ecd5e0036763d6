"""Breaks a run's time down from the times of its calls. All moments are on the clock of `time.monotonic`."""

from collections.abc import Sequence

from cappella.ensemble.run import Call, Panel, Role, Timings

JUDGING: tuple[Role, ...] = ("agreement", "analysis", "choice", "score", "fold", "final")


def timings(
    began_at: float,
    panel_ended_at: float,
    first_token_at: float | None,
    ended_at: float,
    rounds: Sequence[Panel],
    calls: Sequence[Call],
) -> Timings:
    """The run's timings; `calls` holds all of its calls, those of `rounds` included."""
    judging = sorted((call for call in calls if call.role in JUDGING), key=lambda call: call.began_at)
    analysis = next((call for call in judging if call.role == "analysis"), None)
    return Timings(
        panel_s=panel_ended_at - began_at,
        analysis_s=analysis.total_s if analysis else None,
        judge_first_token_s=first_token_at and first_token_at - panel_ended_at,
        first_token_s=first_token_at and first_token_at - began_at,
        total_s=ended_at - began_at,
        floor_s=sum(_slowest_s(panel) for panel in rounds) + _decode_s(judging),
        overhead_s=ended_at - began_at - _busy_s(calls),
        early_prefill_tokens=sum(_prefilled_tokens(call) for call in calls if call.role == "prefill"),
        late_prefill_tokens=_prefilled_tokens(judging[0]) if judging else 0,
    )


def _slowest_s(panel: Panel) -> float:
    return max((answer.took_s for answer in panel.answers), default=0.0)


def _decode_s(judging: Sequence[Call]) -> float:
    """The seconds in which the judge generated tokens; calls at the same time count once."""
    spans = [(call.began_at + call.first_token_s, call.ended_at) for call in judging if call.first_token_s is not None]
    return _union_s(spans)


def _busy_s(calls: Sequence[Call]) -> float:
    """The seconds in which at least one engine call was running."""
    return _union_s([(call.began_at, call.ended_at) for call in calls])


def _union_s(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of (begin, end) intervals."""
    total_s, covered_until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total_s += max(0.0, end - max(begin, covered_until))
        covered_until = max(covered_until, end)
    return total_s


def _prefilled_tokens(call: Call) -> int:
    """The prompt's tokens that were not in the engine's prefix cache."""
    return call.usage.prompt_tokens - call.usage.cached_tokens
