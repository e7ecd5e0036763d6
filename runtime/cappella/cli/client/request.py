"""What is asked of a server, and how the run is shown: live on a terminal, as the answer alone elsewhere."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from cappella.cli.client.http import Json, Server, stream
from cappella.cli.client.live import LiveRun
from cappella.cli.client.run_view import View
from cappella.cli.client.text import safe
from cappella.cli.client.waterfall import Waterfall
from cappella.errors import ConfigError
from cappella.pace import duration

PATH = "/v1/chat/completions"
ENSEMBLE = "cappella/"


@dataclass(slots=True)
class AskOptions:
    """Whom to ask, and how the run departs from its ensemble."""

    model: str = "cappella/default"
    system: str | None = None
    fusion: Json = field(default_factory=dict)

    @property
    def is_of_ensemble(self) -> bool:
        return self.model.startswith(ENSEMBLE)

    def body(self, turns: Sequence[Json], **fusion: Any) -> Json:
        """The request; `fusion` is what the client itself wants of an ensemble."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        body: Json = {"model": self.model, "messages": [*opening, *turns]}
        told = {**self.fusion, **fusion} if self.is_of_ensemble else self.fusion
        return body | ({"fusion": told} if told else {})


def fields(settings: Sequence[str]) -> Json:
    """`analysis=off` and the like as fields of `fusion`, values read as YAML. Raises ConfigError."""
    out: Json = {}
    for each in settings:
        name, equals, text = each.partition("=")
        if not equals or not name.strip():
            raise ConfigError("--fusion", f"{each!r} sets nothing", "Write field=value, such as samples=2")
        out[name.strip()] = _value(name.strip(), text)
    return out


def text_of(data: bytes) -> str:
    """What came on standard input. Raises ConfigError if it is no text."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("standard input", "is not UTF-8 text", "Convert it first") from error


def watched_console() -> Console | None:
    """Standard output, if a person looks at it on a terminal that can draw."""
    console = Console(highlight=False)
    return console if sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb") else None


async def show(
    server: Server, options: AskOptions, turns: Sequence[Json], console: Console, whole_members: bool
) -> View:
    """Ask, and draw the run on a terminal, with all that is known of it below the answer. Raises ServerError."""
    view = View(options.model)
    body = {**options.body(turns, include_events=True), "stream": True, "stream_options": {"include_usage": True}}
    async with LiveRun(console, view, whole_members) as live:
        async for chunk in stream(server, PATH, body):
            live.take(chunk)
        view.end()
    _conclude(console, view)
    return view


async def tell(server: Server, options: AskOptions, turns: Sequence[Json], at_once: bool) -> View:
    """Ask, and print the answer alone: `at_once` as it comes, else whole, so that half an answer is none."""
    view = View(options.model)
    async for chunk in stream(server, PATH, {**options.body(turns), "stream": True}):
        known = len(view.answer)
        view.take(chunk)
        if at_once:
            print(safe(view.answer[known:]), end="", flush=True)
    print("" if at_once else view.answer, flush=True)
    view.end()
    return view


def waterfall(view: View) -> Waterfall | None:
    """None for a single model, which leaves no trace."""
    return Waterfall(view.fusion, view.usage) if view.fusion and view.usage else None


def _conclude(console: Console, view: View) -> None:
    drawn = waterfall(view)
    console.print()
    if drawn:
        console.print(drawn)
    console.print(Text(_footer(view), "dim"), soft_wrap=True)


def _footer(view: View) -> str:
    fusion = view.fusion
    if not fusion:
        tokens = view.usage.get("completion_tokens", view.answer_pieces)
        return f"{view.model} · {tokens} tokens · {duration((view.ended_at or view.clock()) - view.began_at)}"
    reason = f" ({fusion['failure_reason']})" if "failure_reason" in fusion else ""
    parts = [f"{fusion['status']}{reason}", fusion["strategy"], f"judge {fusion['judge_model']}"]
    parts += [f"chosen {fusion['chosen']}"] if "chosen" in fusion else []
    return " · ".join([*parts, duration(fusion["timings"]["total_ms"] / 1000), view.run_id])


def _value(field_name: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("--fusion", f"{field_name}={text} is no YAML", "Put quotes around it") from error
    # YAML reads a bare off as false, and here it is a mode.
    return text.strip() if isinstance(value, bool) and text.strip() not in ("true", "false") else value
