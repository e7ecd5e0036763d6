"""An MCP server whose tools ask the panel: a second opinion for agents that run on another model."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any, Protocol

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from cappella.errors import CappellaError
from cappella.run_view import View
from cappella.version import __version__
from cappella.vocabulary import Json

ENSEMBLE = "cappella/"
INSTRUCTIONS = (
    "A panel of local language models with a judge. Use ask_panel for a second opinion on a question, compare to see where the"
    " models disagree. They see only what you write: put all that matters (code, errors, constraints) into the question."
)

Question = Annotated[str, Field(min_length=1, description="The whole question; the models see nothing else.")]
Ensemble = Annotated[str | None, Field(description="An id of list_models; left out: the server's default ensemble.")]
System = Annotated[str | None, Field(description="A system prompt for the panel and the judge.")]
Preset = Annotated[str | None, Field(description="A preset of the ensemble, as list_models names it.")]
Members = Annotated[
    list[str] | None, Field(description="Models to compare instead of the ensemble's panel, by their ids.")
]
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


class Asked(Protocol):
    """The server that the tools ask, with the rights of whoever calls them. All raises CappellaError with its message."""

    @property
    def default_model(self) -> str:
        """The model that a call asks if it names none."""
        ...

    def stream(self, body: Json) -> AsyncGenerator[Json, None]:
        """The chunks of a chat completion, which is cancelled if this is closed before its end."""
        ...

    async def models(self) -> Json:
        """The list of what can be asked."""
        ...


def server_of(asked_in: Callable[[Context[Any, Any]], Asked]) -> MCPServer[Any]:
    """The MCP server, not yet running; `asked_in` has the server that a call of a tool asks."""
    mcp: MCPServer[Any] = MCPServer("cappella", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING")

    @mcp.tool(annotations=READS)
    async def ask_panel(
        question: Question, context: Context[Any, Any], model: Ensemble = None, system: System = None,
        preset: Preset = None,
    ) -> CallToolResult:  # fmt: skip
        """Ask a panel of local models; their judge writes one answer from theirs."""
        view = await _run(asked_in(context), context, model, question, system, preset=preset)
        return _result(view.answer, _summary(view))

    @mcp.tool(annotations=READS)
    async def compare(
        question: Question, context: Context[Any, Any], model: Ensemble = None, system: System = None,
        models: Members = None,
    ) -> CallToolResult:  # fmt: skip
        """Ask several local models the same, and see each one's answer, where they agree and differ, and the judge's answer."""
        fusion: Json = {"include_intermediate_responses": True, "analysis": "before", "analysis_models": models}
        view = await _run(asked_in(context), context, model, question, system, **fusion)
        return _result(_comparison(view), {**_summary(view), "responses": view.fusion.get("responses", [])})

    @mcp.tool(annotations=READS)
    async def list_models(context: Context[Any, Any]) -> CallToolResult:
        """List the ensembles, with their panels and presets, and the single models that can be asked."""
        try:
            entries = (await asked_in(context).models())["data"]
        except CappellaError as error:
            raise ToolError(str(error)) from error
        return _result("\n".join(map(_line, entries)), {"models": [_entry(each) for each in entries]})

    return mcp


async def _run(
    asked: Asked, context: Context[Any, Any], model: str | None, question: str, system: str | None, **fusion: Any
) -> View:
    """The ended run; progress is reported whenever a member ends, and when the judge begins. Raises ToolError."""
    view = View(model or asked.default_model)
    opening = [{"role": "system", "content": system}] if system else []
    turns = [*opening, {"role": "user", "content": question}]
    events = {"include_events": True} if view.model.startswith(ENSEMBLE) else {}
    options = {name: value for name, value in {**fusion, **events}.items() if value}
    body = {"model": view.model, "messages": turns, "stream": True} | ({"fusion": options} if options else {})
    told = ""
    try:
        async with aclosing(asked.stream(body)) as chunks:
            async for chunk in chunks:
                view.add(chunk)
                if (stage := _stage(view)) != told:
                    told = stage
                    await context.report_progress(_ended(view), len(view.members) + 1, stage)
    except CappellaError as error:
        raise ToolError(str(error)) from error
    view.end()
    if not view.answer:
        raise ToolError(f"{view.model} ended without an answer.")
    return view


def _ended(view: View) -> int:
    return len(view.members) - len(view.awaited)


def _stage(view: View) -> str:
    """What the run waits for."""
    if view.answer_at:
        return "the answer is being written"
    if view.judging_at:
        return f"{view.judge} reads the answers" if view.judge else "the answers are compared"
    return f"waiting for {', '.join(view.awaited)}" if view.awaited else "asked"


def _summary(view: View) -> Json:
    """What is known of the run, without the members' texts."""
    names = ("run_id", "status", "strategy", "judge_model", "analysis_models", "failed_models", "failure_reason")
    known = {name: view.fusion[name] for name in (*names, "analysis") if view.fusion.get(name) is not None}
    return {"model": view.model, "answer": view.answer, **known}


def _comparison(view: View) -> str:
    """The answers, the comparison and the judge's answer, as text."""
    parts = [f"## {each['model']}\n{each['content']}" for each in view.fusion.get("responses", ())]
    parts += [f"## {each['model']} failed\n{each['error']}" for each in view.fusion.get("failed_models", ())]
    if view.analysis:
        parts.append(f"## Comparison\n{json.dumps(view.analysis, ensure_ascii=False, indent=1)}")
    return "\n\n".join([*parts, f"## Answer of the judge\n{view.answer}"])


def _entry(model: Json) -> Json:
    names = ("id", "panel", "judge", "presets", "max_model_len")
    return {name: model[name] for name in names if name in model}


def _line(model: Json) -> str:
    if "panel" not in model:
        return f"{model['id']}: a single model"
    presets = f"; presets {', '.join(model['presets'])}" if model.get("presets") else ""
    return f"{model['id']}: panel {', '.join(model['panel'])}; judge {model['judge'] or 'none'}{presets}"


def _result(text: str, structured: Json) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)
