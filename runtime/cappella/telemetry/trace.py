"""JSON of a run's trace and usage, as clients get it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from cappella import vocabulary
from cappella.config.options import Settings
from cappella.ensemble.errors import PanelFailed
from cappella.ensemble.run import Answer, Call, Failure, GateDecision, Run
from cappella.telemetry import found_sources, judged, tool_uses, weighed
from cappella.telemetry.trace_types import (
    CallCost,
    Counts,
    Decision,
    FailedModel,
    PanelAnswer,
    Trace,
    UnfinishedTrace,
    Usage,
)
from cappella.types import Json


class Detail(Protocol):
    """The optional parts of a trace that a client requested, and the fields of its request that were ignored."""

    @property
    def include_analysis(self) -> bool: ...
    @property
    def include_intermediate_responses(self) -> bool: ...
    @property
    def ignored(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class FullDetail:
    """All optional parts."""

    include_analysis: bool = True
    include_intermediate_responses: bool = True
    ignored: Sequence[str] = ()


def fusion(run: Run, options: Detail) -> Trace:
    """The trace of a run with the requested parts; keys of stages that did not happen are absent."""
    settings, verdict = run.settings, run.verdict
    trace: Trace = {
        "run_id": run.run_id,
        "status": run.status,
        "ensemble": settings.ensemble,
        "strategy": settings.strategy,
        "judge_model": settings.asked_judge,
        "analysis_models": [seat.name for seat in settings.panel],
        "failed_models": failed_models(run.failures),
        "labels": dict(run.labels),
        "seed": settings.seed,
        "timings": timings(run),
        "usage": cost(run.calls),
    }
    judge_writes = vocabulary.STRATEGIES[settings.strategy].judge_writes
    has_analysis = judge_writes and settings.analysis != "off" and verdict.early_exit == "off"
    if options.include_analysis and has_analysis and run.status != "bypassed":
        trace["analysis"] = run.analysis
    if options.include_intermediate_responses:
        trace["responses"] = responses(run.answers)
        if len(run.rounds) > 1:
            trace["rounds"] = [responses(panel.answers) for panel in run.rounds]
    if options.ignored:
        trace["ignored"] = list(options.ignored)
    found_sources.add(trace, run.sources, cited_only=not options.include_intermediate_responses)
    _add_outcome(trace, run)
    return trace


def _add_outcome(trace: Trace, run: Run) -> None:
    verdict = run.verdict
    if run.judgement is not None:
        trace["judgement"] = judged.told(run.judgement)
    if run.settings.answers:
        trace["given"] = [answer.name for answer in run.settings.answers]
    if run.settings.preset is not None:
        trace["preset"] = run.settings.preset
    if run.gate is not None:
        trace["gate"] = decision(run.gate)
    if verdict.chosen is not None:
        trace["chosen"] = verdict.chosen
    if verdict.merged is not None:
        trace["merged"] = list(verdict.merged)
    if verdict.probabilities is not None:
        trace["probabilities"] = dict(verdict.probabilities)
    if verdict.scores is not None:
        trace["scores"] = dict(verdict.scores)
    if verdict.tied is not None:
        trace["tied"] = list(verdict.tied)
    if verdict.votes is not None:
        trace["votes"] = {name: list(voters) for name, voters in verdict.votes.items()}
    weighed.add(trace, run)
    tool_uses.add(trace, run)
    if run.ranking is not None:
        trace["ranking"] = list(run.ranking)
    if run.shortened:
        trace["shortened"] = [{"model": each.name, "tokens": each.tokens, "of": each.of} for each in run.shortened]
    if run.dropped_points:
        trace["dropped_points"] = run.dropped_points
    if run.failed_judges:
        trace["failed_judges"] = [
            {"model": each.model, "reason": each.reason, "error": each.error} for each in run.failed_judges
        ]
    if run.settings.judge_texts:
        trace["prompts"] = {name: version(text) for name, text in run.settings.judge_texts.items()}
    if run.settings.own_knowledge:
        trace["own_knowledge"] = True
    if verdict.early_exit != "off":
        trace["early_exit"] = verdict.early_exit
    if run.failure_reason is not None:
        trace["failure_reason"] = run.failure_reason


def version(text: str) -> str:
    """By which a text of the operator's own is known: the beginning of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def decision(gate: GateDecision) -> Decision:
    return {"bypass": gate.bypass, "model": gate.model, "reason": gate.reason}


def unfinished(
    run_id: str, settings: Settings, status: str, error: Exception | None, used: tool_uses.Used
) -> UnfinishedTrace:
    """The trace of a run without an answer: its panel, the failures that are known, and its calls of tools."""
    failed = error if isinstance(error, PanelFailed) else None
    trace: UnfinishedTrace = {
        "run_id": run_id,
        "status": status,
        "ensemble": settings.ensemble,
        "strategy": settings.strategy,
        "judge_model": settings.asked_judge,
        "analysis_models": [seat.name for seat in settings.panel],
        "failed_models": failed_models(failed.failures) if failed else [],
        "seed": settings.seed,
    }
    if failed:
        trace["responses"] = responses(failed.answers)
    tool_uses.add(trace, used)
    return trace


def without_content(trace: Trace | UnfinishedTrace) -> Json:
    """The trace without text of models and passages, and without error messages of engines, which may quote it."""
    out: Json = {name: value for name, value in trace.items() if name not in _CONTENT}
    out["failed_models"] = [
        {name: value for name, value in failed.items() if name not in ("error", "partial")}
        for failed in out["failed_models"]
    ]
    if judges := out.get("failed_judges"):
        out["failed_judges"] = [{name: value for name, value in each.items() if name != "error"} for each in judges]
    if uses := out.get("tool_calls"):
        out["tool_calls"] = [tool_uses.without_content(use) for use in uses]
    if gate := out.get("gate"):
        out["gate"] = {name: value for name, value in gate.items() if name != "reason"}
    return out


_CONTENT = ("analysis", "responses", "rounds", "extracted", "judgement", "sources")


def run_usage(run: Run) -> Usage:
    """Tokens as the client knows them, those of its conversation and of the answer, and each call of the run.

    What the run cost in all is the `usage` of its trace; of a judgement, which writes no answer, it is the same.
    """
    if run.judgement is not None:
        return {**cost(run.calls), "fusion_details": call_costs(run.calls)}
    answer = run.answer
    sent = [call.usage for call in (answer.thought, answer.call) if call is not None]
    counts = _counts(
        run.prompt_tokens,
        min(answer.call.usage.cached_tokens, run.prompt_tokens),
        sum(usage.completion_tokens for usage in sent),
        sum(usage.reasoning_tokens for usage in sent),
    )
    return {**counts, "fusion_details": call_costs(run.calls)}


def cost(calls: Sequence[Call]) -> Counts:
    """The sum of all calls. An early prefill's prompt counts once, though the judge reads it again: then as cached."""
    early = [call.usage for call in calls if call.role == "prefill"]
    others = [call.usage for call in calls if call.role != "prefill"]
    has_read = any(call.of_judge and call.usage.prompt_tokens for call in calls)
    unread_tokens = 0 if has_read else max((usage.prompt_tokens for usage in early), default=0)
    # Cached only because the run itself had filled the cache.
    warmed_tokens = sum(usage.prompt_tokens - usage.cached_tokens for usage in early)
    cached_tokens = sum(usage.cached_tokens for usage in others) + unread_tokens - warmed_tokens
    return _counts(
        sum(usage.prompt_tokens for usage in others) + unread_tokens,
        max(0, cached_tokens),
        sum(call.usage.completion_tokens for call in calls),
        sum(call.usage.reasoning_tokens for call in calls),
    )


def call_costs(calls: Sequence[Call]) -> list[CallCost]:
    began_at = min((call.began_at for call in calls), default=0.0)
    return [_cost(call, began_at) for call in calls]


def _counts(prompt_tokens: int, cached_tokens: int, completion_tokens: int, reasoning_tokens: int) -> Counts:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def _cost(call: Call, began_at: float) -> CallCost:
    usage = call.usage
    cost: CallCost = {
        "role": call.role,
        "model": call.seat,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "start_ms": ms(call.began_at - began_at),
        "first_token_ms": ms(call.first_token_s),
        "ms": ms(call.total_s),
    }
    if usage.estimated:
        cost["estimated"] = True
    if call.tokens_per_step != 1:
        cost["tokens_per_step"] = round(call.tokens_per_step, 2)
    return cost


def responses(answers: Sequence[Answer]) -> list[PanelAnswer]:
    return [_response(answer) for answer in answers]


def failed_models(failures: Sequence[Failure]) -> list[FailedModel]:
    return [failed_model(failure) for failure in failures]


def failed_model(failure: Failure) -> FailedModel:
    out: FailedModel = {
        "model": failure.name,
        "error": failure.error,
        "status_code": failure.status_code,
        "reason": failure.reason,
    }
    if failure.partial:
        out["partial"] = failure.partial
    if cut := failure.cut:
        out |= {"cut": "grace", "quorum_ms": ms(cut.quorum_s), "grace_ms": ms(cut.grace_s)}
    return out


def _response(answer: Answer) -> PanelAnswer:
    out: PanelAnswer = {"model": answer.name, "content": answer.content, "finish_reason": answer.finish_reason}
    if answer.reasoning:
        out["reasoning"] = answer.reasoning
    if answer.tool_calls:
        out["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
    return out


def timings(run: Run) -> Json:
    """The timings of a run: keys in `_s` become `_ms`, in milliseconds; counts are unchanged."""
    return {
        name.removesuffix("_s") + "_ms" if name.endswith("_s") else name: ms(value) if name.endswith("_s") else value
        for name, value in asdict(run.timings).items()
    }


def ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
