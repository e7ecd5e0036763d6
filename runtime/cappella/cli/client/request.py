"""Sends a question to a server and prints the run: live on a terminal, only the answer elsewhere."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from cappella.cli.client.durations import duration
from cappella.cli.client.http import Json, Server, stream
from cappella.cli.client.live import LiveRun
from cappella.cli.client.sources import cited_sources
from cappella.cli.client.text import safe
from cappella.errors import ConfigError
from cappella.run_view import View

PATH = "/v1/chat/completions"
ENSEMBLE = "cappella/"


@dataclass(slots=True)
class AskOptions:
    """The model to ask, its system prompt, and the fusion fields of the request."""

    model: str = "cappella/default"
    system: str | None = None
    fusion: Json = field(default_factory=dict)

    @property
    def is_of_ensemble(self) -> bool:
        return self.model.startswith(ENSEMBLE)

    def body(self, turns: Sequence[Json], **fusion: Any) -> Json:
        """The request body; `fusion` holds further fields for an ensemble."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        body: Json = {"model": self.model, "messages": [*opening, *turns]}
        fields = {**self.fusion, **fusion} if self.is_of_ensemble else self.fusion
        return body | ({"fusion": fields} if fields else {})


def fields(settings: Sequence[str]) -> Json:
    """Settings such as `analysis=off` as fields of `fusion`, with values in YAML. Raises ConfigError."""
    return dict(_field(setting) for setting in settings)


def _field(setting: str) -> tuple[str, Any]:
    # Imported here: most questions have no such setting, and the config's models take a third of a command's start.
    from cappella.config.yaml_source import option_value

    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise ConfigError("--fusion", f"{setting!r} is not a setting", "Write field=value, such as samples=2")
    return name.strip(), option_value("--fusion", setting, text)


def text_of(data: bytes) -> str:
    """Decode standard input. Raises ConfigError unless it is UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("standard input", "is not UTF-8 text", "Convert it first") from error


def watched_console() -> Console | None:
    """Standard output, if it is a terminal that can draw."""
    console = Console(highlight=False)
    return console if sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb") else None


async def show(
    server: Server, options: AskOptions, turns: Sequence[Json], console: Console, whole_members: bool
) -> View:
    """Ask, and draw the run on a terminal; a one-line summary follows the answer. Raises ServerError."""
    view = View(options.model)
    body = {**options.body(turns, include_events=True), "stream": True, "stream_options": {"include_usage": True}}
    async with LiveRun(console, view, whole_members) as live:
        async for chunk in stream(server, PATH, body):
            live.add(chunk)
        view.end()
    console.print()
    if sources := list(cited_sources(view.fusion)):
        console.print(*sources, "", sep="\n", soft_wrap=True)
    console.print(Text(_footer(view), "dim"), soft_wrap=True)
    return view


async def stream_plain(server: Server, options: AskOptions, turns: Sequence[Json], at_once: bool) -> View:
    """Ask, and print only the answer: as it is written if `at_once`, otherwise only when it is complete."""
    view = View(options.model)
    async for chunk in stream(server, PATH, {**options.body(turns), "stream": True}):
        known = len(view.answer)
        view.add(chunk)
        if at_once:
            print(safe(view.answer[known:]), end="", flush=True)
    print("" if at_once else view.answer, flush=True)
    view.end()
    return view


def _footer(view: View) -> str:
    fusion = view.fusion
    if not fusion:
        tokens = view.usage.get("completion_tokens", view.answer_pieces)
        return f"{view.model} · {tokens} tokens · {duration((view.ended_at or view.clock()) - view.began_at)}"
    reason = f" ({fusion['failure_reason']})" if "failure_reason" in fusion else ""
    parts = [f"{fusion['status']}{reason}", fusion["strategy"]]
    parts += [f"judge {fusion['judge_model']}"] if fusion.get("judge_model") else []
    parts += [f"chosen {fusion['chosen']}"] if "chosen" in fusion else []
    return " · ".join([*parts, duration(fusion["timings"]["total_ms"] / 1000), view.run_id])
