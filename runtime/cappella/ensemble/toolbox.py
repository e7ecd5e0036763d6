"""The tools that one seat is offered, under the names by which its model calls them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from cappella.config.seat_tools import SeatTools
from cappella.tools.base import Tool, ToolServer
from cappella.types import Json
from cappella.vocabulary import ToolChoice

MAX_NAME_CHARACTERS = 64
"""OpenAI's API has such names, of letters, digits, `_` and `-`."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """`tools` by name; `missing` are the servers that offer none now, and why; a seat may make so many calls of them.

    With `choice: required` its first turn must make one.
    """

    tools: Mapping[str, Tool] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    max_calls: int = 0
    choice: ToolChoice = "auto"

    @classmethod
    def of(
        cls,
        tools: SeatTools,
        servers: Mapping[str, ToolServer],
        withheld: AbstractSet[str],
    ) -> "Toolbox":
        """The tools of a seat's servers, without those that are withheld from the caller."""
        missing, found = dict[str, str](), list[Tool]()
        for name in tools.servers:
            server = servers.get(name)
            if name in withheld:
                missing[name] = "withheld"
            elif server is None or server.problem is not None:
                missing[name] = "unavailable"
            else:
                found += server.tools
        return cls(_named(found), missing, tools.max_calls, tools.choice)

    @property
    def definitions(self) -> list[Json]:
        """The tools as a request to an engine defines them."""
        return [
            {
                "type": "function",
                "function": {"name": name, "description": tool.description, "parameters": tool.parameters},
            }
            for name, tool in self.tools.items()
        ]


def _named(tools: Sequence[Tool]) -> Mapping[str, Tool]:
    """Each under its own name, or `server_tool` where several have that name."""
    counts, named = Counter(_spelled(tool.name) for tool in tools), dict[str, Tool]()
    for tool in tools:
        own = _spelled(tool.name)
        name = own if counts[own] == 1 else _spelled(f"{tool.server}_{tool.name}")
        named[_free(name, named)] = tool
    return named


def _free(name: str, named: Mapping[str, Tool]) -> str:
    """The name, or with a number if it is taken: two names may be alike in their first characters."""
    number, free = 1, name
    while free in named:
        number += 1
        free = f"{name[: MAX_NAME_CHARACTERS - 4]}_{number}"
    return free


def _spelled(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:MAX_NAME_CHARACTERS]
