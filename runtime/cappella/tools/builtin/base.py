"""What the tools in the box share: arguments that are checked, errors that the model is told, and results that are cut."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cappella.tools.base import STOPPED, Details, Offer, Tool, ToolResult
from cappella.types import Json

MAX_RESULT_BYTES = 16 << 10
MAX_WAIT_S = 20.0

A = TypeVar("A", bound="Arguments")


class Refused(Exception):
    """A call that gives no result; `str(error)` is told to the model."""


class Arguments(BaseModel):
    """Arguments of a tool. Its docstring is the tool's description for the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Places:
    """So many calls at once; one that waits longer than `max_wait_s` for a place raises Refused."""

    def __init__(self, places: int, max_wait_s: float = MAX_WAIT_S) -> None:
        self._free = asyncio.Semaphore(places)
        self._places = places
        self._max_wait_s = max_wait_s

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A place while the context is open."""
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._free.acquire()
        except TimeoutError:
            busy = f"This tool is busy: {self._places} calls ran, and none ended within {self._max_wait_s:g} s"
            raise Refused(f"{busy}. Try again later.") from None
        try:
            yield
        finally:
            self._free.release()


class BuiltinServer(Offer, Generic[A]):
    """A tool server in this process: `forms` has the arguments of each tool, `_answer` gives the result or raises Refused.

    `_prepare` gets ready in the background, and returns what stands in the way.
    """

    details = Details()

    def __init__(self, name: str, forms: Mapping[str, type[A]]) -> None:
        super().__init__(name)
        self._forms = forms
        self._preparing: asyncio.Task[None] | None = None
        self._answering = set[asyncio.Task[str]]()

    def _offered(self) -> Sequence[Tool]:
        return [Tool(self._name, tool, self._description(tool), _schema(form)) for tool, form in self._forms.items()]

    def _description(self, tool: str) -> str:
        return " ".join((self._forms[tool].__doc__ or "").split())

    async def start(self) -> None:
        """Begin to get ready, in the background."""
        self._preparing = asyncio.create_task(self._prepared())

    async def started(self) -> None:
        """Returns when it is ready, or has a problem."""
        if self._preparing:
            await asyncio.wait({self._preparing})

    async def stop(self) -> None:
        """End what it started; calls on the way get a result that says so."""
        if self._preparing and not self._preparing.done():
            self._preparing.cancel()
            await asyncio.wait({self._preparing})
        self._problem = STOPPED
        for task in (answering := {*self._answering}):
            task.cancel()
        if answering:
            await asyncio.wait(answering)

    async def _prepared(self) -> None:
        try:
            self._problem = await self._prepare()
        except Exception as error:  # noqa: BLE001 - it has no tools then, and an operator is told
            self._problem = f"it cannot start: {error!r}"

    async def _prepare(self) -> str | None:
        return None

    async def call(self, tool: str, arguments: Json) -> ToolResult:
        """Call a tool. What fails is a result that `is_error`."""
        try:
            if problem := self.problem:
                raise Refused(f"This tool has a problem: {problem}.")
            if tool not in self._forms:
                raise Refused(f"There is no tool {tool[:100]!r} here. There are {', '.join(self._forms)}.")
            return ToolResult(_cut(await self._answered(self._forms[tool].model_validate(arguments))))
        except Refused as error:
            return ToolResult(_cut(str(error)), is_error=True)
        except ValidationError as error:
            return ToolResult(_cut(_told(error)), is_error=True)
        except Exception as error:  # noqa: BLE001 - of a library, or the machine: the run goes on without this result
            return ToolResult(_cut(f"The tool failed: {error!r}"), is_error=True)

    async def _answered(self, arguments: A) -> str:
        """The answer, in a task: a stop cancels that, and not whoever calls."""
        task = asyncio.create_task(self._answer(arguments))
        self._answering.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})
            self._answering.discard(task)
        if task.cancelled():
            raise Refused("This tool was stopped before it answered.")
        return task.result()

    async def _answer(self, arguments: A) -> str:
        raise NotImplementedError


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg'].removeprefix('Value error, ')}"
        for each in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    )


def _schema(form: type[BaseModel]) -> Json:
    """The JSON schema of arguments, without what says nothing to a model."""
    schema = form.model_json_schema()
    return {
        "type": "object",
        "properties": {name: _plain(field) for name, field in schema.get("properties", {}).items()},
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def _plain(field: Mapping[str, Any]) -> Json:
    return {key: value for key, value in field.items() if key not in ("title", "default")}


def _cut(text: str) -> str:
    """At most MAX_RESULT_BYTES of it, as text that can be sent."""
    content = text.encode(errors="replace")
    if len(content) <= MAX_RESULT_BYTES:
        return content.decode()
    return f"{content[:MAX_RESULT_BYTES].decode(errors='ignore')}\n[{len(content) - MAX_RESULT_BYTES:,} bytes left out]"
