"""Span attributes: OpenTelemetry's names for HTTP and generative AI, and our own under `cappella.`; no content.

The names for generative AI are from github.com/open-telemetry/semantic-conventions-genai.
"""

from collections.abc import Mapping, Sequence

from cappella.config.options import Seat, Settings
from cappella.ensemble.run import Call
from cappella.telemetry.records import CallRecord, RequestRecord, RunRecord
from cappella.types import Sampling, Usage

Value = str | int | float | bool | Sequence[str]
Attributes = dict[str, Value]

PROVIDER = "vllm"
_OPERATIONS = {
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    **dict.fromkeys(("/v1/rerank", "/v1/score", "/classify"), "score"),
}
"""By route; all others are chats. OpenTelemetry has no name for scores."""


def of_request(record: RequestRecord) -> Attributes:
    """Attributes of an HTTP request."""
    return _without_none(
        {
            "http.request.method": record.method,
            "http.route": record.route,
            "http.response.status_code": record.status_code,
            "error.type": record.error,
            "cappella.asked": record.target,
            "cappella.background": record.is_background or None,
            "cappella.key_id": record.key_id,
        }
    )


def of_run(record: RunRecord) -> Attributes:
    """Attributes of a run, from its admission on."""
    run, settings = record.run, record.settings_used
    out: dict[str, Value | None] = {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": settings.ensemble,
        "cappella.run_id": record.run_id,
        "cappella.status": record.status,
        "cappella.strategy": settings.strategy,
        "cappella.preset": settings.preset,
        "cappella.judge": settings.asked_judge,
        "cappella.failed": [f"{failure.name}: {failure.reason}" for failure in record.failures] or None,
    }
    if run is None:
        return _without_none({**out, "error.type": record.status})
    timings = run.timings
    return _without_none(
        {
            **out,
            "cappella.failure_reason": run.failure_reason,
            "cappella.chosen": run.verdict.chosen,
            "cappella.early_exit": run.verdict.early_exit,
            "cappella.floor_s": timings.floor_s,
            "cappella.overhead_s": timings.overhead_s,
            "cappella.early_prefill_tokens": timings.early_prefill_tokens,
            "cappella.late_prefill_tokens": timings.late_prefill_tokens,
        }
    )


def of_call(
    call: Call, settings: Settings, finish_reasons: Sequence[str] = (), reason: str | None = None
) -> Attributes:
    """Attributes of one engine call; `reason` is the reason code if it gave no answer."""
    seat = next((seat for seat in settings.panel if seat.name == call.seat), Seat(call.seat, call.seat))
    return {
        **_of_model(seat.model, "chat", call.usage),
        **_sampling(call, seat, settings),
        **_without_none(
            {
                "gen_ai.request.stream": True,
                "gen_ai.response.time_to_first_chunk": call.first_token_s,
                "gen_ai.response.finish_reasons": list(finish_reasons) or None,
                "error.type": reason,
                "cappella.role": call.role,
                "cappella.seat": seat.name,
                "cappella.tokens_per_step": call.tokens_per_step,
                # Engines report usage at the end of an answer only; until then it is estimated, or nothing.
                "cappella.cut_short": call.usage.estimated or call.usage == Usage(),
            }
        ),
    }


def of_single(record: CallRecord, route: str | None) -> Attributes:
    """Attributes of a call of a single model."""
    operation = _OPERATIONS.get(route or "", "chat")
    error = None if record.status == "ok" else record.status
    return {**_of_model(record.model, operation, record.usage), **_without_none({"error.type": error})}


def _of_model(model: str, operation: str, usage: Usage) -> Attributes:
    return _without_none(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
        }
    )


def _sampling(call: Call, seat: Seat, settings: Settings) -> Attributes:
    """Sampling parameters, where the request or the config sets them."""
    samplings = {
        "panel": seat.sampling,
        "lookup": seat.sampling,
        "final": settings.judge_sampling,
        "single": settings.judge_sampling,
    }
    sampling = samplings.get(call.role, Sampling())
    return _without_none(
        {
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.max_tokens": sampling.max_completion_tokens,
            "gen_ai.request.choice.count": seat.samples if call.role == "panel" and seat.samples > 1 else None,
        }
    )


def _without_none(values: Mapping[str, Value | None]) -> Attributes:
    """The entries whose value is not None."""
    return {name: value for name, value in values.items() if value is not None}
