"""The part of a trace that says by what an answer was chosen: values, evidence, the margin, and whether that is sure."""

from collections.abc import Mapping

from cappella.ensemble.run import Run
from cappella.extraction.extractors import Reading
from cappella.telemetry.trace_types import WeighedTrace

MAX_VALUE_CHARACTERS = 200


def add(trace: WeighedTrace, run: Run) -> None:
    """Add the keys that apply; of long values the beginning."""
    verdict = run.verdict
    if (sampled := run.sampled) is not None:
        trace["sampled"] = {"asked": sampled.asked, "most": sampled.most, "lead": round(sampled.lead, 3)}
    if verdict.read is not None:
        trace["extracted"] = {"by": verdict.read.extractor, "values": _values(verdict.read)}
    if (grouped := run.grouped) is not None:
        trace["agreement"] = {"by": grouped.by, "groups": [list(group) for group in grouped.groups]}
        if grouped.reason is not None:
            trace["agreement"]["failure_reason"] = grouped.reason
    if verdict.evidence is not None:
        trace["evidence"] = {part: _rounded(each) for part, each in verdict.evidence.items()}
    if verdict.margin is not None:
        trace["margin"] = round(verdict.margin, 3)
    if verdict.confidence is not None:
        trace["confidence"] = verdict.confidence


def _values(read: Reading) -> dict[str, str | None]:
    return {name: value and value[:MAX_VALUE_CHARACTERS] for name, value in read.values.items()}


def _rounded(by_name: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in by_name.items()}
