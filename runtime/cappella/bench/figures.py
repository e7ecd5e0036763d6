"""Figures from batches: percentiles, stages, ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from cappella.bench.load import Batch
from cappella.bench.systems import Reply
from cappella.types import Json

STAGES = ("panel", "judge reads", "judge writes")


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a quantity, in its unit."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One system under one load and size. Times in seconds; `None` for figures that need Cappella's trace.

    `errors` are the distinct messages of the runs that failed; `runs_per_s` is the median over the batches. `of_floor` is the
    median of a run's wall time over its floor, the slowest awaited member plus the judge's writing time. `stages` are medians.
    """

    system: str
    load: str
    panel: int
    answer_tokens: int | None
    runs: int
    failed: int
    errors: Sequence[str]
    runs_per_s: float
    tokens_per_s: float
    first_token_s: Spread
    total_s: Spread
    of_floor: float | None
    overhead_s: Spread | None
    late_prefill_tokens: float | None
    early_prefill_tokens: float | None
    judge_tokens_per_step: float | None
    stages: dict[str, float] | None


def figures(system: str, load: str, panel: int, answer_tokens: int | None, batches: Sequence[Batch]) -> Figures | None:
    """The figures of one system; None if it has no reply."""
    replies = [reply for batch in batches for reply in batch.replies]
    if not replies:
        return None
    traced = [reply for reply in replies if reply.trace]
    return Figures(
        system=system,
        load=load,
        panel=panel,
        answer_tokens=answer_tokens,
        runs=len(replies),
        failed=sum(len(batch.errors) for batch in batches),
        errors=sorted({error for batch in batches for error in batch.errors}),
        runs_per_s=median(len(batch.replies) / batch.seconds for batch in batches),
        tokens_per_s=median(sum(reply.tokens for reply in batch.replies) / batch.seconds for batch in batches),
        first_token_s=spread([reply.first_token_s for reply in replies]),
        total_s=spread([reply.total_s for reply in replies]),
        of_floor=_median(traced, lambda reply: reply.total_s * 1000 / _timings(reply)["floor_ms"]),
        overhead_s=spread([_overhead_s(reply) for reply in traced]) if traced else None,
        late_prefill_tokens=_median(traced, lambda reply: _timings(reply)["late_prefill_tokens"]),
        early_prefill_tokens=_median(traced, lambda reply: _timings(reply)["early_prefill_tokens"]),
        judge_tokens_per_step=_median(traced, _tokens_per_step),
        stages=_stages(traced) if traced else None,
    )


def spread(values: Sequence[float]) -> Spread:
    """Percentiles by the nearest rank."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Spread(at(0.5), at(0.95), at(0.99))


def _median(replies: Sequence[Reply], of: Callable[[Reply], float]) -> float | None:
    return median(of(reply) for reply in replies) if replies else None


def _timings(reply: Reply) -> Json:
    assert reply.trace
    timings: Json = reply.trace["fusion"]["timings"]
    return timings


def _overhead_s(reply: Reply) -> float:
    """The time without an engine call in progress, as seen by the client: HTTP, fan-out, gather, set-up."""
    timings = _timings(reply)
    return reply.total_s - float(timings["total_ms"] - timings["overhead_ms"]) / 1000


def _tokens_per_step(reply: Reply) -> float:
    assert reply.trace
    return float(reply.trace["usage"]["fusion_details"][-1].get("tokens_per_step", 1.0))


def _stages(replies: Sequence[Reply]) -> dict[str, float]:
    """Medians of a run's stages, in seconds."""
    parts = [(_timings(reply), reply) for reply in replies]
    reads = median((timings["judge_first_token_ms"] or 0) / 1000 for timings, _ in parts)
    writes = median((timings["total_ms"] - (timings["first_token_ms"] or 0)) / 1000 for timings, _ in parts)
    return dict(zip(STAGES, (median(timings["panel_ms"] / 1000 for timings, _ in parts), reads, writes), strict=True))
