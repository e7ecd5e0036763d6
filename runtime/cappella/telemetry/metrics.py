"""Prometheus metrics of the gateway: runs, stages, engine calls, queue and replies.

No label value comes from a client: names of ensembles, models and seats are from the config, the rest from fixed lists.
"""

from collections import Counter as Counted
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cappella.ensemble import agreement
from cappella.ensemble.run import Call, Failure, Run
from cappella.ensemble.timing import JUDGING
from cappella.telemetry import snapshot
from cappella.telemetry.snapshot import Snapshot
from cappella.types import Usage

Labels = tuple[str, str]
"""Seat and role of a call."""

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SHORT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
SHARE_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
STEP_BUCKETS = (1, 1.5, 2, 3, 4, 6, 8, 16, 33)
OTHER = "other"
NO_STATUS = "none"
"""The status code of a client that disconnected before it got one."""
MEMBER_FAILED = "member_failed"
MAX_NORMALISED_CHARS = 500


class Metrics:
    """The metrics of one gateway, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._make_runs()
        self._make_calls()
        self._make_requests()

    def _make_runs(self) -> None:
        self._runs = self._counter("runs", "Ended runs", "ensemble status")
        self._in_flight = Gauge("cappella_runs_in_flight", "Runs in flight", ["ensemble"], registry=self.registry)
        self._degraded = self._counter("runs_degraded", "Degraded runs by reason", "ensemble reason")
        self._stages = self._histogram("stage_seconds", "Duration of a stage of a run", "ensemble stage", BUCKETS_S)
        self._floor = self._histogram(
            "run_floor_seconds", "Latency floor of a run: slowest member plus the judge's final answer", "ensemble",
            BUCKETS_S,
        )  # fmt: skip
        self._overhead = self._histogram(
            "run_overhead_seconds", "Time of a run without any engine call in progress", "ensemble", SHORT_BUCKETS_S
        )
        self._agreement = self._histogram(
            "agreement_ratio", "Share of a run's answers in the largest group of equal answers", "ensemble",
            SHARE_BUCKETS,
        )  # fmt: skip
        self._samples = self._counter(
            "samples", "Samples of seats with adaptive samples: asked, or saved as the lead was safe.", "ensemble state"
        )
        self._shortened = self._counter(
            "answers_shortened", "Answers that a judge read without their middle, since all exceeded its context",
            "ensemble",
        )  # fmt: skip
        self._prefill = self._counter(
            "judge_prefill_tokens", "Prompt tokens prefilled by the judge during the panel (early) or after it (late)",
            "ensemble when",
        )  # fmt: skip

    def _make_calls(self) -> None:
        self._calls = self._histogram("call_seconds", "Duration of an engine call", "model role", BUCKETS_S)
        self._first_tokens = self._histogram(
            "call_first_token_seconds", "Time to the first token of an engine call", "model role", SHORT_BUCKETS_S
        )
        self._steps = self._histogram(
            "tokens_per_step", "Tokens per decoding step in a call of the judge", "model role", STEP_BUCKETS
        )
        self._tokens = self._counter("tokens", "Tokens of engine calls", "model role kind")
        self._failures = self._counter("member_failures", "Members without an answer", "model reason")

    def _make_requests(self) -> None:
        self._queued = self._histogram("queue_seconds", "Queue time of admitted requests", "name", SHORT_BUCKETS_S)
        self._ignored = self._counter("ignored_fields", "Fields of requests that were ignored, by endpoint", "path")
        self._refused_connections = self._counter(
            "refused_connections", "Connections refused at a limit: of one address, or of all", "limit"
        )
        for limit in ("address", "all"):
            # From 0, or the first refusal is no increase.
            self._refused_connections.labels(limit)
        self._replies = self._counter("http_replies", "HTTP replies by endpoint and status code", "path status_code")

    def begin(self, ensemble: str) -> None:
        self._in_flight.labels(ensemble).inc()

    def end(
        self, ensemble: str, run: Run | None, status: str, failures: Sequence[Failure], calls: Sequence[Call]
    ) -> None:
        """Count one run and its calls; for a failed run, `run` is None and `status` names the error."""
        self._in_flight.labels(ensemble).dec()
        self._runs.labels(ensemble, status).inc()
        for failure in failures:
            self._failures.labels(_seat(failure.name), failure.reason).inc()
        for labels, alike in _by_labels(calls).items():
            self._count_tokens(labels, [call.usage for call in alike])
        if run is not None:
            self._observe(ensemble, run)

    def count_reply(self, path: str | None, status_code: int | None) -> None:
        """Count one reply. `path` is the endpoint's route, None if none matched; `status_code` is None if none was sent."""
        self._replies.labels(path or OTHER, status_code or NO_STATUS).inc()

    def count_ignored(self, path: str, count: int) -> None:
        """Count the fields of one request that were ignored. `path` is the endpoint's route."""
        self._ignored.labels(path).inc(count)

    def count_refused_connection(self, limit: str) -> None:
        self._refused_connections.labels(limit).inc()

    def observe_queue(self, name: str, seconds: float) -> None:
        """Count one admitted request to the ensemble or model `name`."""
        self._queued.labels(name).observe(seconds)

    async def render(self, now: Snapshot) -> bytes:
        """All metrics, with those of the snapshot, in Prometheus' text format."""
        return generate_latest(self.registry) + await snapshot.render(now)

    def _observe(self, ensemble: str, run: Run) -> None:
        for labels, alike in _by_labels(run.calls).items():
            self._observe_calls(labels, alike)
        # A judgement has no panel whose stages or agreement could be compared with those of runs.
        if run.judgement is None:
            self._observe_stages(ensemble, run)

    def _observe_stages(self, ensemble: str, run: Run) -> None:
        timings = run.timings
        stages = {
            "panel": timings.panel_s,
            "analysis": timings.analysis_s,
            "judge_first_token": timings.judge_first_token_s,
            "first_token": timings.first_token_s,
            "total": timings.total_s,
        }
        for stage, seconds in stages.items():
            if seconds is not None:
                self._stages.labels(ensemble, stage).observe(seconds)
        self._floor.labels(ensemble).observe(timings.floor_s)
        self._overhead.labels(ensemble).observe(timings.overhead_s)
        self._prefill.labels(ensemble, "early").inc(timings.early_prefill_tokens)
        self._prefill.labels(ensemble, "late").inc(timings.late_prefill_tokens)
        if run.sampled:
            self._samples.labels(ensemble, "asked").inc(run.sampled.asked)
            self._samples.labels(ensemble, "saved").inc(run.sampled.most - run.sampled.asked)
        self._shortened.labels(ensemble).inc(len(run.shortened))
        if run.status == "degraded":
            self._degraded.labels(ensemble, run.failure_reason or MEMBER_FAILED).inc()
        if len(run.answers) > 1:
            self._agreement.labels(ensemble).observe(_agreement(run))

    def _observe_calls(self, labels: Labels, calls: Sequence[Call]) -> None:
        totals, first_tokens = self._calls.labels(*labels), self._first_tokens.labels(*labels)
        steps = self._steps.labels(*labels) if labels[1] in JUDGING else None
        for call in calls:
            totals.observe(call.total_s)
            if call.first_token_s is not None:
                first_tokens.observe(call.first_token_s)
            if steps:
                steps.observe(call.tokens_per_step)

    def _count_tokens(self, labels: Labels, usages: Sequence[Usage]) -> None:
        self._tokens.labels(*labels, "prompt").inc(sum(usage.prompt_tokens for usage in usages))
        self._tokens.labels(*labels, "cached").inc(sum(usage.cached_tokens for usage in usages))
        self._tokens.labels(*labels, "completion").inc(sum(usage.completion_tokens for usage in usages))

    def _counter(self, name: str, help_text: str, labels: str) -> Counter:
        return Counter(f"cappella_{name}", help_text, labels.split(), registry=self.registry)

    def _histogram(self, name: str, help_text: str, labels: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"cappella_{name}", help_text, labels.split(), buckets=buckets, registry=self.registry)


def _by_labels(calls: Sequence[Call]) -> Mapping[Labels, Sequence[Call]]:
    """The calls by seat and role: a judgement may have hundreds, and to look up a metric takes longer than to count."""
    found: dict[Labels, list[Call]] = {}
    for call in calls:
        found.setdefault((call.seat, call.role), []).append(call)
    return found


def _agreement(run: Run) -> float:
    """The share of the largest group of equal answers.

    Long answers are compared unnormalised, since normalising them would block the event loop.
    """
    answers = run.answers
    if all(len(answer.content) <= MAX_NORMALISED_CHARS for answer in answers):
        read = agreement.reading(answers, run.settings.extract, pattern=run.settings.extract_pattern)
        largest = max(map(len, agreement.groups(answers, read)), default=1)
    else:
        largest = max(Counted(answer.content for answer in answers).values())
    return largest / len(answers)


def _seat(answer: str) -> str:
    """The seat of an answer: the model's name, numbered if the model has several seats. Samples share a seat."""
    return answer.partition("~")[0]
