"""What a client gets: completions, chunks and errors in OpenAI's form, with `fusion` beside them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cappella.schema import Fusion
from cappella.types import (
    AnalysisDone,
    Answer,
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    Call,
    Event,
    Failure,
    FinalDelta,
    Run,
    RunStarted,
)

Json = dict[str, Any]


def completion(run: Run, options: Fusion) -> Json:
    """The whole answer of a run as one `chat.completion`."""
    return {
        "id": run.run_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": _model_id(run),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": run.content},
                "logprobs": None,
                "finish_reason": run.finish_reason,
            }
        ],
        "usage": usage(run.calls),
        "fusion": fusion(run, options),
    }


def fusion(run: Run, options: Fusion) -> Json:
    """The trace of a run, as far as the client asked for it."""
    trace: Json = {
        "run_id": run.run_id,
        "status": run.status,
        "strategy": "synthesize",
        "judge_model": run.settings.judge,
        "analysis_models": [seat.name for seat in run.settings.panel],
        "failed_models": failed_models(run.failures),
        "labels": dict(run.labels),
        "seed": run.settings.seed,
        "timings": _timings(run),
    }
    if options.include_analysis and run.settings.analysis != "off":
        trace["analysis"] = run.analysis
    if options.include_intermediate_responses:
        trace["responses"] = responses(run.answers)
    if run.failure_reason:
        trace["failure_reason"] = run.failure_reason
    return trace


def usage(calls: Sequence[Call]) -> Json:
    """The sum over all engine calls of a run, and each of them."""
    prompt = sum(call.usage.prompt_tokens for call in calls)
    completion_tokens = sum(call.usage.completion_tokens for call in calls)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(call.usage.cached_tokens for call in calls)},
        "completion_tokens_details": {"reasoning_tokens": sum(call.usage.reasoning_tokens for call in calls)},
        "fusion_details": [
            {"role": call.role, "model": call.model, **asdict(call.usage), "ms": _ms(call.total_s)} for call in calls
        ],
    }


def responses(answers: Sequence[Answer]) -> list[Json]:
    return [
        {"model": answer.seat.name, "content": answer.content, "finish_reason": answer.finish_reason}
        | ({"reasoning": answer.reasoning} if answer.reasoning else {})
        for answer in answers
    ]


def failed_models(failures: Sequence[Failure]) -> list[Json]:
    return [
        {"model": f.seat.name, "error": f.error, "status_code": f.status_code, "reason": f.reason}
        | ({"partial": f.partial} if f.partial else {})
        for f in failures
    ]


class Chunks:
    """Makes the `chat.completion.chunk` objects of one streamed run."""

    def __init__(self, model: str) -> None:
        self._head: Json = {"id": "", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

    def role(self) -> Json:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, delta: FinalDelta) -> Json:
        return self._chunk({"content": delta.text})

    def progress(self, event: Event) -> Json:
        """An empty delta, so that every client reads it, with the event beside it."""
        return self._chunk({}, fusion_event=_event(event))

    def started(self, event: RunStarted) -> None:
        self._head["id"] = event.run_id

    def end(self, run: Run, options: Fusion, include_usage: bool) -> list[Json]:
        """The last chunks: the finish reason, the trace and the usage.

        OpenAI's `include_usage` wants the usage on a chunk without choices; who did not ask may not expect such a one.
        """
        trace = {"fusion": fusion(run, options), "usage": usage(run.calls)}
        if include_usage:
            return [self._chunk({}, run.finish_reason), {**self._head, "choices": [], **trace}]
        return [self._chunk({}, run.finish_reason, **trace)]

    def _chunk(self, delta: Mapping[str, str], finish_reason: str | None = None, **extensions: Any) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice], **extensions}


def _event(event: Event) -> Json:
    match event:
        case RunStarted():
            return {"type": "run.started", "run_id": event.run_id, "panel": list(event.panel), "judge": event.judge}
        case AnswerDelta():
            return {"type": "answer.delta", "model": event.member, "delta": event.text}
        case AnswerDone():
            call = event.answer.call
            tokens = call.usage.completion_tokens
            return {"type": "answer.done", "model": event.answer.seat.name, "tokens": tokens, "ms": _ms(call.total_s)}
        case AnswerFailed():
            return {"type": "answer.failed", **failed_models([event.failure])[0]}
        case AnalysisDone():
            return {"type": "analysis.done", "analysis": event.analysis}
        case FinalDelta():
            return {"type": "final.delta", "delta": event.text}


def _timings(run: Run) -> Json:
    return {name.removesuffix("_s") + "_ms": _ms(value) for name, value in asdict(run.timings).items()}


def _model_id(run: Run) -> str:
    return f"cappella/{run.settings.ensemble}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
