"""Writes one audit line for each run and call that ended."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cappella.config import Config
from cappella.config.options import Settings
from cappella.ensemble.errors import PanelFailed
from cappella.telemetry import judged, tool_uses, trace
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.weights import WeightDigests, Weights
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.types import Json, Usage
from cappella.version import __version__

WEIGHTS = "weights"
"""The kind of the line that gives all digests, once computed, after each start and reload."""
_PROMPT_FIELDS = tuple("messages prompt input system instructions query queries documents".split())
"""The fields of a request of any API that hold the prompt."""


class AuditRecorder:
    """A `RunObserver` that writes key, model, weights, tokens, timings and status to `log`."""

    def __init__(self, log: AuditLog, digests: WeightDigests, weights: Weights) -> None:
        self._log = log
        self._digests = digests
        self._weights = weights

    def compute_digests(self) -> None:
        """Start computing the digests; a line of kind `weights` follows when they are known."""
        self._digests.compute(self._weights, self._log_weights)

    def require_available(self) -> None:
        self._log.require_available()

    def for_config(self, config: Config, added: Collection[str]) -> "AuditRecorder":
        recorder = AuditRecorder(self._log, self._digests, Weights(config, self._weights, added))
        recorder.compute_digests()
        return recorder

    def run_ended(self, record: RunRecord) -> None:
        settings = record.settings_used
        line: Json = {
            "kind": "run",
            "key": record.key and record.key.id,
            "model": settings.called,
            "run_id": record.run_id,
            "panel": [seat.model for seat in settings.panel],
            "judge": settings.asked_judge,
            "weights": self._weights.of(_models(settings)),
            "tokens": _tokens(call.usage for call in record.calls),
            "timings": trace.timings(record.run) if record.run else {"total_ms": trace.ms(record.total_s)},
            "status": record.status,
            "failure_reason": _reason(record),
        }
        if counts := tool_uses.counts(record.tool_uses):
            line["tool_calls"] = dict(counts)
        self._log.write(line, lambda: _run_content(record))

    def call_ended(self, record: CallRecord) -> None:
        line = {
            "kind": "call",
            "key": record.key and record.key.id,
            "model": record.model,
            "weights": self._weights.of([record.model]),
            "tokens": _tokens([record.usage]),
            "timings": {"total_ms": trace.ms(record.total_s)},
            "status": record.status,
        }
        self._log.write(line, lambda: _prompt(record), record.reply)

    def _log_weights(self, digests: Mapping[str, str]) -> None:
        self._log.write({"kind": WEIGHTS, "cappella": __version__, "weights": digests})


def _models(settings: Settings) -> list[str]:
    others = [settings.asked_judge, settings.gate and settings.gate.model]
    return [*(seat.model for seat in settings.panel), *(each for each in others if each), *settings.helpers]


def _tokens(usages: Iterable[Usage]) -> Mapping[str, int]:
    usages = list(usages)
    return {
        "prompt": sum(usage.prompt_tokens for usage in usages),
        "cached": sum(usage.cached_tokens for usage in usages),
        "completion": sum(usage.completion_tokens for usage in usages),
    }


def _reason(record: RunRecord) -> Any:
    """Reason codes only: an engine's error message may quote the conversation."""
    if isinstance(record.error, PanelFailed):
        return {failure.name: failure.reason for failure in record.error.failures}
    return record.run and record.run.failure_reason


def _run_content(record: RunRecord) -> Json:
    if record.run and record.run.judgement:
        told = trace.responses(record.run.answers), judged.told(record.run.judgement)
        return {"messages": list(record.prompt.messages), "responses": told[0], "judgement": told[1]}
    answer = trace.responses([record.run.answer])[0] if record.run else None
    return {"messages": list(record.prompt.messages), "answer": answer}


def _prompt(record: CallRecord) -> Json:
    return {name: record.request[name] for name in _PROMPT_FIELDS if name in record.request}
