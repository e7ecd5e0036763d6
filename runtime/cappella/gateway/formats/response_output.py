"""Output items of the Responses API, and the names that they have in events."""

from cappella.ensemble.citations import Cited
from cappella.ensemble.run import Run
from cappella.gateway.formats.blocks import Block
from cappella.gateway.formats.fields import SERVER_TOOL
from cappella.telemetry import trace
from cappella.types import Json


def fusion_item(run: Run) -> Json:
    """The panel's work as an output item of the hosted product's form; what is not known is left out."""
    failed = [known(dict(each)) for each in trace.failed_models(run.failures)]
    outcome = {
        "analysis": run.analysis,
        "responses": [{"model": answer.name, "content": answer.content} for answer in run.answers],
        "failed_models": failed or None,
        "failure_reason": run.failure_reason,
    }
    return {"type": SERVER_TOOL, "id": id_of("fc", run.run_id), "status": "completed", **known(outcome)}


def known(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def item_of(block: Block, run_id: str, status: str) -> Json:
    head = {"id": id_of_item(block, run_id), "status": status}
    match block.kind:
        case "text":
            return {"type": "message", **head, "role": "assistant", "content": [text_part(block)]}
        case "progress":
            return {"type": "reasoning", **head, "summary": [summary_part(block)]}
        case "reasoning":
            content = [{"type": "reasoning_text", "text": block.text}]
            return {"type": "reasoning", **head, "summary": [], "content": content}
        case "call":
            assert block.call
            named = {"call_id": block.call.id, "name": block.call.name, "arguments": block.text}
            return {"type": "function_call", **head, **named}


def text_part(block: Block) -> Json:
    annotations = [annotation(cited) for cited in block.citations]
    return {
        "type": "output_text",
        "text": block.text,
        "annotations": annotations,
        "logprobs": list(block.logprobs),
    }


def annotation(cited: Cited) -> Json:
    """A citation in OpenAI's form. The file's id is the handle in `fusion.sources`."""
    source = cited.source
    return {
        "type": "file_citation",
        "index": cited.at,
        "file_id": source.handle,
        "filename": source.passage.path,
    }


def summary_part(block: Block) -> Json:
    return {"type": "summary_text", "text": block.text}


def id_of_item(block: Block, run_id: str) -> str:
    prefix = {"text": "msg", "progress": "rs", "reasoning": "rs", "call": "fcall"}[block.kind]
    return f"{id_of(prefix, run_id)}-{block.index}"


def id_of(prefix: str, run_id: str) -> str:
    return f"{prefix}_{run_id.removeprefix('run-')}"


def status_of(run: Run) -> str:
    return "incomplete" if run.answer.finish_reason == "length" else "completed"
