"""Figures in Prometheus' form: our own per run, stage and member, and the engines' own beside them.

No label is a text of a client's: ensembles, models and their seats are the config's, all else is from lists of ours.
"""

from collections import Counter as Counted
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cappella.ensemble import agreement
from cappella.ensemble.run import Answer, Call, Failure, Run
from cappella.ensemble.timing import JUDGING
from cappella.telemetry import snapshot
from cappella.telemetry.snapshot import Snapshot

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SHORT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
SHARE_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
STEP_BUCKETS = (1, 1.5, 2, 3, 4, 6, 8, 16, 33)
OTHER = "other"
LEFT = "none"
MEMBER_FAILED = "member_failed"
MAX_NORMALISED = 500


class Metrics:
    """One registry per gateway; nothing here is global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = self._counter("runs", "Runs that ended", "ensemble status")
        self._in_flight = Gauge("cappella_runs_in_flight", "Runs under way", ["ensemble"], registry=self.registry)
        self._degraded = self._counter("runs_degraded", "Degraded runs by what failed", "ensemble reason")
        self._stages = self._histogram("stage_seconds", "Time per stage of a run", "ensemble stage", BUCKETS_S)
        self._floor = self._histogram(
            "run_floor_seconds", "The slowest member and the judge's writing: what no gateway could save", "ensemble",
            BUCKETS_S,
        )  # fmt: skip
        self._overhead = self._histogram(
            "run_overhead_seconds", "Time of a run in which no engine was asked anything", "ensemble", SHORT_BUCKETS_S
        )
        self._agreement = self._histogram(
            "agreement_ratio", "Share of a run's answers that say the same as most", "ensemble", SHARE_BUCKETS
        )
        self._read = self._counter(
            "judge_prefill_tokens", "Tokens the judge read while the panel spoke (early), or after (late)",
            "ensemble when",
        )  # fmt: skip
        self._calls = self._histogram("call_seconds", "Time per engine call", "model role", BUCKETS_S)
        self._first_tokens = self._histogram(
            "call_first_token_seconds", "Time to a call's first token", "model role", SHORT_BUCKETS_S
        )
        self._steps = self._histogram(
            "tokens_per_step", "Tokens a judge's engine gave per step of a call", "model role", STEP_BUCKETS
        )
        self._tokens = self._counter("tokens", "Tokens of engine calls", "model role kind")
        self._failures = self._counter("member_failures", "Members that gave no answer", "model reason")
        self._queued = self._histogram("queue_seconds", "Time until there was room", "name", SHORT_BUCKETS_S)
        self._replies = self._counter("http_replies", "Replies by endpoint and status code", "path status_code")

    def begin(self, ensemble: str) -> None:
        self._in_flight.labels(ensemble).inc()

    def end(
        self, ensemble: str, run: Run | None, status: str, failures: Sequence[Failure], calls: Sequence[Call]
    ) -> None:
        """Count one run and its calls; `run` is None where it ended in an error, and `status` then names it."""
        self._in_flight.labels(ensemble).dec()
        self._runs.labels(ensemble, status).inc()
        for failure in failures:
            self._failures.labels(_seat(failure.name), failure.reason).inc()
        for call in calls:
            self._count_tokens(call)
        if run is not None:
            self._observe(ensemble, run)

    def replied(self, path: str | None, status_code: int | None) -> None:
        """Count one reply; `path` is the endpoint's own, None where the client found none. A status too, if it left."""
        self._replies.labels(path or OTHER, status_code or LEFT).inc()

    def queued(self, name: str, seconds: float) -> None:
        """Count one that was let in; `name` is an ensemble's or a model's."""
        self._queued.labels(name).observe(seconds)

    async def render(self, now: Snapshot) -> bytes:
        """Everything, as text."""
        return generate_latest(self.registry) + await snapshot.render(now)

    def _observe(self, ensemble: str, run: Run) -> None:
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
        self._read.labels(ensemble, "early").inc(timings.early_prefill_tokens)
        self._read.labels(ensemble, "late").inc(timings.late_prefill_tokens)
        if run.status == "degraded":
            self._degraded.labels(ensemble, run.failure_reason or MEMBER_FAILED).inc()
        if len(run.answers) > 1:
            self._agreement.labels(ensemble).observe(_agreement(run.answers))
        for call in run.calls:
            self._observe_call(call)

    def _observe_call(self, call: Call) -> None:
        named = (call.seat, call.role)
        self._calls.labels(*named).observe(call.total_s)
        if call.first_token_s is not None:
            self._first_tokens.labels(*named).observe(call.first_token_s)
        if call.role in JUDGING:
            self._steps.labels(*named).observe(call.tokens_per_step)

    def _count_tokens(self, call: Call) -> None:
        named = (call.seat, call.role)
        self._tokens.labels(*named, "prompt").inc(call.usage.prompt_tokens)
        self._tokens.labels(*named, "cached").inc(call.usage.cached_tokens)
        self._tokens.labels(*named, "completion").inc(call.usage.completion_tokens)

    def _counter(self, name: str, about: str, labels: str) -> Counter:
        return Counter(f"cappella_{name}", about, labels.split(), registry=self.registry)

    def _histogram(self, name: str, about: str, labels: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"cappella_{name}", about, labels.split(), buckets=buckets, registry=self.registry)


def _agreement(answers: Sequence[Answer]) -> float:
    """The share of the largest camp. To make long texts comparable would hold up the event loop: they stand as they are."""
    if all(len(answer.content) <= MAX_NORMALISED for answer in answers):
        most = len(agreement.group_by_meaning(answers)[0])
    else:
        most = max(Counted(answer.content for answer in answers).values())
    return most / len(answers)


def _seat(answer: str) -> str:
    """Whose answer it is: the model's name, with a number where it sits twice. Samples share it."""
    return answer.partition("~")[0]
