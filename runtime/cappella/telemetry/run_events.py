"""JSON of the events of a run, as clients get it."""

from cappella.ensemble import events
from cappella.telemetry.trace import decision, failed_model, ms
from cappella.types import Json


def told(event: events.Event) -> Json:
    """The JSON of an event, with its `type`."""
    match event:
        case events.RunStarted():
            return {"type": "run.started", "run_id": event.run_id, "panel": list(event.panel), "judge": event.judge}
        case events.Gated():
            return {"type": "gate.decided", **decision(event.decision)}
        case events.RoundStarted():
            return {"type": "round.started", "round": event.number}
        case events.Waiting():
            return {"type": "engine.waiting", "model": event.name, "reason": event.reason}
        case events.Awake():
            return {"type": "engine.awake", "model": event.name, "ms": ms(event.waited_s)}
        case events.GraceStarted():
            times = {"quorum_ms": ms(event.quorum_s), "grace_ms": ms(event.grace_s)}
            return {"type": "grace.started", "models": list(event.names), **times}
        case events.AnswerDelta():
            reasoning = {"reasoning": event.reasoning} if event.reasoning else {}
            return {"type": "answer.delta", "model": event.name, "delta": event.text, **reasoning}
        case events.ToolCalled() | events.ToolReturned():
            return _of_tool(event)
        case events.AnswerDone():
            call = event.answer.call
            tokens = call.usage.completion_tokens
            return {"type": "answer.done", "model": event.answer.name, "tokens": tokens, "ms": ms(call.total_s)}
        case events.AnswerFailed():
            return {"type": "answer.failed", **failed_model(event.failure)}
        case events.Reviewed():
            return {"type": "review.done", "ranking": list(event.ranking)}
        case events.AnalysisStarted():
            return {"type": "analysis.started", "labels": dict(event.labels)}
        case events.AnalysisDelta():
            return {"type": "analysis.delta", "delta": event.text}
        case events.AnalysisDone():
            return {"type": "analysis.done", "analysis": event.analysis}
        case events.FinalDelta():
            return {"type": "final.delta", "delta": event.chunk.content}
        case events.CitationsRemoved():
            return {"type": "citations.removed", "handles": list(event.handles)}
        case events.Told():
            return {"type": "progress.told", "delta": event.text}


def _of_tool(event: events.ToolCalled | events.ToolReturned) -> Json:
    if isinstance(event, events.ToolCalled):
        asked = {"server": event.server, "tool": event.tool, "arguments": event.arguments}
        return {"type": "tool.called", "model": event.name, **asked}
    use = event.use
    where = {"model": use.seat, "server": use.server, "tool": use.tool}
    return {"type": "tool.returned", **where, "is_error": use.is_error, "shared": use.shared, "ms": ms(use.total_s)}
