"""One line of the audit log for each run and each call that has ended."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cappella.config import Config
from cappella.config.options import Settings
from cappella.ensemble.errors import PanelFailed
from cappella.telemetry import trace
from cappella.telemetry.audit import transcript
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.weights import WeightDigests, Weights
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.types import Json, Usage
from cappella.version import __version__

WEIGHTS = "weights"
"""The kind of a line that says, after each start and reload, what `pending` stood for in the lines before it."""
_ASKED = ("messages", "prompt", "input", "system", "instructions")
"""Where the requests of the APIs have what a model reads."""


class AuditRecorder:
    """A keeper that writes to `log` who asked what of which weights, and how it ended."""

    def __init__(self, log: AuditLog, digests: WeightDigests, weights: Weights) -> None:
        self._log = log
        self._digests = digests
        self._weights = weights

    def find_digests(self) -> None:
        """Beside everything else; a line tells them once they are known."""
        self._digests.find(self._weights, self._log_weights)

    def require(self) -> None:
        self._log.require()

    def renewed(self, config: Config, added: Collection[str]) -> "AuditRecorder":
        auditing = AuditRecorder(self._log, self._digests, Weights(config, self._weights, added))
        auditing.find_digests()
        return auditing

    def run_ended(self, ended: RunRecord) -> None:
        settings = ended.settings
        line = {
            "kind": "run",
            "key": ended.key and ended.key.id,
            "model": f"cappella/{settings.ensemble}",
            "run_id": ended.run_id,
            "panel": [seat.model for seat in settings.panel],
            "judge": settings.judge,
            "weights": self._weights.of(_models(settings)),
            "tokens": _tokens(call.usage for call in ended.calls),
            "timings": trace.timings(ended.run) if ended.run else {"total_ms": trace.ms(ended.total_s)},
            "status": ended.status,
            "failure_reason": _reason(ended),
        }
        self._log.write(line, lambda: _run_content(ended))

    def call_ended(self, ended: CallRecord) -> None:
        line = {
            "kind": "call",
            "key": ended.key and ended.key.id,
            "model": ended.model,
            "weights": self._weights.of([ended.model]),
            "tokens": _tokens([ended.usage]),
            "timings": {"total_ms": trace.ms(ended.total_s)},
            "status": ended.status,
        }
        self._log.write(line, lambda: _call_content(ended))

    def _log_weights(self, digests: Mapping[str, str]) -> None:
        self._log.write({"kind": WEIGHTS, "cappella": __version__, "weights": digests})


def _models(settings: Settings) -> list[str]:
    gate = [settings.gate.model] if settings.gate else []
    return [*(seat.model for seat in settings.panel), settings.judge, *gate]


def _tokens(used: Iterable[Usage]) -> Mapping[str, int]:
    all_used = list(used)
    return {
        "prompt": sum(usage.prompt_tokens for usage in all_used),
        "cached": sum(usage.cached_tokens for usage in all_used),
        "completion": sum(usage.completion_tokens for usage in all_used),
    }


def _reason(ended: RunRecord) -> Any:
    """Words for programs alone: an engine's own sentence may quote what was said."""
    if isinstance(ended.error, PanelFailed):
        return {failure.name: failure.reason for failure in ended.error.failures}
    return ended.run and ended.run.failure_reason


def _run_content(ended: RunRecord) -> Json:
    answer = trace.responses([ended.run.answer])[0] if ended.run else None
    return {"messages": list(ended.prompt.messages), "answer": answer}


def _call_content(ended: CallRecord) -> Json:
    asked = {name: ended.asked[name] for name in _ASKED if name in ended.asked}
    return {**asked, "answer": transcript.answer(ended.reply)}
