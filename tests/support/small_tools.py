"""A small server of tools for runs: each tool is a function; calls may be held until they are released."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cappella.tools.base import Passage, Tool, ToolResult
from cappella.types import Json

LEAVE = Passage("handbook", "leave.md", "lines 10-14", "Everyone has 30 days of leave.")
NOTICE = Passage("handbook", "notice.md", "page 2", "Notice is given in writing.")


@dataclass
class SmallTools:
    """Calls of `functions`, which get the arguments; `asked` are those that came in, `ended` counts those that ended.

    With `holds` each waits until `released` is set; `given_up` counts those that were cancelled meanwhile.
    """

    name: str = "box"
    functions: dict[str, Callable[[Json], ToolResult]] = field(default_factory=dict)
    problem: str | None = None
    holds: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, Json]] = field(default_factory=list)
    given_up: int = 0

    @property
    def tools(self) -> Sequence[Tool]:
        parameters = {"type": "object", "properties": {"q": {"type": "string"}}}
        names = () if self.problem else self.functions
        return [Tool(self.name, name, f"Does {name}.", parameters) for name in names]

    async def call(self, tool: str, arguments: Json) -> ToolResult:
        self.asked.append((tool, arguments))
        try:
            if self.holds:
                await self.released.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return self.functions[tool](arguments)


def searching(*passages: Passage, name: str = "handbook") -> SmallTools:
    """A server that finds these passages, whatever is asked."""
    return SmallTools(name, {"search": lambda _: ToolResult(passages=passages)})


def adding(name: str = "box") -> SmallTools:
    """A server that adds the numbers in `q`."""
    return SmallTools(name, {"add": lambda arguments: ToolResult(str(sum(map(int, arguments["q"].split("+")))))})
