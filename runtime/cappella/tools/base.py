"""The Protocol of a tool server: what a run needs of one, whether it is an MCP server, in the box, or a folder of documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cappella.types import Json


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of the server named `server` in the config; `parameters` is the JSON schema of its arguments."""

    server: str
    name: str
    description: str
    parameters: Json


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document that a tool found; `place` is where, such as `page 3` or `lines 10-14`."""

    documents: str
    """The name of the documents in the config, or of the server that found it."""
    path: str
    place: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """The passage of index `passage` in a result was found because it names `by`, as that of index `to` does."""

    passage: int
    to: int
    by: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: text, an error that the model is told, or passages, which a model may cite, and how they are related."""

    text: str = ""
    is_error: bool = False
    passages: Sequence[Passage] = ()
    relations: Sequence[Relation] = ()


class ToolServer(Protocol):
    """Tools under one name of the config. Its methods raise nothing: what fails is a result that `is_error`."""

    @property
    def name(self) -> str: ...

    @property
    def problem(self) -> str | None:
        """Why it has no tools now: it is starting, or has failed; None if it serves."""
        ...

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools that it has now; none while it has a `problem`."""
        ...

    async def call(self, tool: str, arguments: Json) -> ToolResult:
        """Call a tool within the server's own limits of time and size. Cancelling it gives the call up."""
        ...


STARTING = "it is starting"
"""The `problem` of a server whose first start has not ended yet."""
STOPPED = "it is stopped"


class Offer:
    """The part of a `ToolServer` that all kinds share: its name, its problem, which is STARTING at first, and its tools."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._problem: str | None = STARTING

    @property
    def name(self) -> str:
        return self._name

    @property
    def problem(self) -> str | None:
        """See `ToolServer`."""
        return self._problem

    @property
    def tools(self) -> Sequence[Tool]:
        """See `ToolServer`."""
        return self._offered() if self.problem is None else ()

    def _offered(self) -> Sequence[Tool]:
        """The tools of a server without a problem."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Details:
    """What an operator is told of a tool server: what confines it, and in `notes` what is left out or not enforced."""

    confined_by: str = "runs in the gateway"
    notes: Sequence[str] = ()
    prompts: int = 0
    resources: int = 0
    is_counted: bool = True
    """Whether it is known how many prompts and resources there are."""


class RunningToolServer(ToolServer, Protocol):
    """A tool server that the gateway starts and stops."""

    async def start(self) -> None:
        """Begin to start it, in the background; until that has ended its problem is STARTING."""
        ...

    async def stop(self) -> None:
        """End it; returns when nothing of it is left running."""
        ...
