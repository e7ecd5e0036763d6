"""`cappella ask`: a client of a running server that shows the members, then the answer, as they come."""

import json
from collections.abc import AsyncIterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from cappella.remote import Json, Server, ServerError, parsed, post


class View:
    """What is known of a run so far, drawn as one panel per member above the final answer."""

    def __init__(self) -> None:
        self.members: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.answer = ""
        self.fusion: Json = {}

    def take(self, chunk: Json) -> None:
        """Fold in one chunk of the stream."""
        if event := chunk.get("fusion_event"):
            self._take_event(event)
        for choice in chunk["choices"]:
            self.answer += choice["delta"].get("content") or ""
        self.fusion = chunk.get("fusion", self.fusion)

    def _take_event(self, event: Json) -> None:
        match event["type"]:
            case "run.started":
                self.members = dict.fromkeys(event["panel"], "")
                self.states = dict.fromkeys(event["panel"], "thinking")
            case "gate.decided" if event["bypass"]:
                self.members, self.states = {}, {event["model"]: "thinking alone"}
            case "round.started":
                self.members = dict.fromkeys(self.members, "")
                self.states = dict.fromkeys(self.members, "thinking again")
            case "answer.delta":
                self.members[event["model"]] += event["delta"]
            case "answer.done":
                self.states[event["model"]] = f"{event['tokens']} tokens, {event['ms'] / 1000:.1f} s"
            case "answer.failed":
                self.states[event["model"]] = f"{event['reason']}: {event['error']}"

    def __rich__(self) -> RenderableType:
        members = [
            Panel(Text(text), title=name, subtitle=self.states[name], title_align="left", subtitle_align="right")
            for name, text in self.members.items()
        ]
        waiting = [name for name, state in self.states.items() if state.startswith("thinking")]
        note = f"waiting on {', '.join(waiting)}" if waiting else "the judge is reading"
        return Group(*members, Text(self.answer or f"… {note}", style="bold" if self.answer else "dim"))


async def ask(server: Server, model: str, prompt: str, as_json: bool, fusion: Json) -> None:
    """Put one question and print the answer: live on a terminal, plain in a pipe, whole as JSON.

    `fusion` is how the run departs from its ensemble.
    """
    body: Json = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    body |= {"fusion": fusion} if fusion else {}
    is_ensemble = model.startswith("cappella/")
    console = Console(highlight=False)
    if as_json:
        options = {"fusion": {**fusion, "include_intermediate_responses": True}} if is_ensemble else {}
        print(json.dumps(await _whole(server, {**body, **options}), indent=2, ensure_ascii=False))
        return
    options = {"fusion": {**fusion, "include_events": True}} if is_ensemble else {}
    view = View()
    if console.is_terminal:
        with Live(view, console=console, refresh_per_second=12) as live:
            async for chunk in _chunks(server, {**body, **options, "stream": True}):
                view.take(chunk)
            live.refresh()
        console.print(_footer(view), style="dim")
        return
    async for chunk in _chunks(server, {**body, "stream": True}):
        view.take(chunk)
    print(view.answer)


def _footer(view: View) -> str:
    if not view.fusion:
        return ""
    fusion = view.fusion
    reason = f" ({fusion['failure_reason']})" if "failure_reason" in fusion else ""
    return f"{fusion['status']}{reason} · judge {fusion['judge_model']} · {fusion['timings']['total_ms'] / 1000:.1f} s"


async def _whole(server: Server, body: Json) -> Json:
    async with post(server, "/v1/chat/completions", body) as response:
        return parsed(await response.read())


async def _chunks(server: Server, body: Json) -> AsyncIterator[Json]:
    async with post(server, "/v1/chat/completions", body) as response:
        async for line in response.content:
            if line.startswith(b"data: [DONE]"):
                return
            if not line.startswith(b"data: "):
                continue
            chunk = parsed(line[6:])
            if "error" in chunk:
                raise ServerError(chunk["error"]["message"])
            yield chunk
        raise ServerError("The answer broke off before its end.")
