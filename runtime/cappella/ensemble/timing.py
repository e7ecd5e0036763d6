"""Where the time of a run went, worked out from its calls. Every moment is on the clock of `time.monotonic`."""

from collections.abc import Sequence

from cappella.ensemble.run import Call, Panel, Role, Timings

JUDGING: tuple[Role, ...] = ("agreement", "analysis", "choice", "final")


def timings(
    began_at: float,
    panel_ended_at: float,
    first_token_at: float | None,
    ended_at: float,
    rounds: Sequence[Panel],
    calls: Sequence[Call],
) -> Timings:
    """`rounds` are the panel's, `calls` all of the run's, theirs too."""
    judging = sorted((call for call in calls if call.role in JUDGING), key=lambda call: call.began_at)
    analysis = next((call for call in judging if call.role == "analysis"), None)
    return Timings(
        panel_s=panel_ended_at - began_at,
        analysis_s=analysis.total_s if analysis else None,
        judge_first_token_s=first_token_at and first_token_at - panel_ended_at,
        first_token_s=first_token_at and first_token_at - began_at,
        total_s=ended_at - began_at,
        floor_s=sum(_slowest_s(panel) for panel in rounds) + _decode_s(judging),
        overhead_s=ended_at - began_at - _covered_s(calls),
        early_prefill_tokens=sum(_computed(call) for call in calls if call.role == "prefill"),
        late_prefill_tokens=_computed(judging[0]) if judging else 0,
    )


def _slowest_s(panel: Panel) -> float:
    return max((answer.call.total_s for answer in panel.answers), default=0.0)


def _decode_s(judging: Sequence[Call]) -> float:
    """How long the judge wrote, from each call's first token on; of calls that went on at once, the longest."""
    spans = [(call.began_at + call.first_token_s, call.ended_at) for call in judging if call.first_token_s is not None]
    return _union_s(spans)


def _covered_s(calls: Sequence[Call]) -> float:
    """How long at least one engine was at work for this run."""
    return _union_s([(call.began_at, call.ended_at) for call in calls])


def _union_s(spans: Sequence[tuple[float, float]]) -> float:
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _computed(call: Call) -> int:
    """The tokens of its prompt that the engine had to read, and did not find in its cache."""
    return call.usage.prompt_tokens - call.usage.cached_tokens
