"""What one seat may use of tools, and the prompts of its turns: those that offer them, and that for its answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from cappella.ensemble.tool_run import ToolRun
from cappella.ensemble.toolbox import Toolbox
from cappella.types import Prompt


@dataclass(frozen=True, slots=True)
class Tools:
    """What one seat may use: its toolbox, and the run of which its calls are.

    `nonce` is that of all marks in its prompt. `remaining_s` is the time until the run's deadline, and
    `remaining_tokens` what is left of its `max_total_tokens`, None without such a limit.
    """

    box: Toolbox
    run: ToolRun
    nonce: str
    remaining_s: Callable[[], float] = lambda: math.inf
    remaining_tokens: Callable[[], int | None] = lambda: None


def offering(prompt: Prompt, tools: Tools) -> Prompt:
    """The prompt of a first turn: with the seat's own tools, in the place of the caller's, and no format, which would rule out calls."""
    choice = "required" if tools.box.choice == "required" else None
    own = tools.box.definitions
    return replace(prompt, tools=own, tool_choice=choice, parallel_tool_calls=None, output_format=None)


def answering(prompt: Prompt, asked: Prompt) -> Prompt:
    """The same prompt for an answer, in the format that was `asked` for. It lists the same tools, as the cache has them."""
    return replace(prompt, tool_choice="none", output_format=asked.output_format)


def answering_plainly(asked: Prompt, results: str) -> Prompt:
    """The same for a model that writes its calls as text: the `results` stand before the question, and it sees no tools.

    Small models that see tools, or calls made, go on to write calls, though they may make none; and they answer what
    stands last.
    """
    if not results:
        return replace(asked, tools=(), tool_choice=None)
    *before, last = asked.messages
    content = last["content"]
    content = f"{results}{content}" if isinstance(content, str) else [{"type": "text", "text": results}, *content]
    return replace(asked, messages=[*before, {**last, "content": content}], tools=(), tool_choice=None)
