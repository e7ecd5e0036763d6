"""Calls of tools in one run: those that are alike are made once, however many seats ask."""

import asyncio
import contextvars
import json
import logging
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace

from cappella.config.seat_tools import SeatTools
from cappella.ensemble import call_counter
from cappella.ensemble.candidates import fresh_nonce
from cappella.ensemble.events import Emit, ToolCalled, ToolReturned
from cappella.ensemble.run import ToolUse
from cappella.ensemble.sources import Source, Sources
from cappella.ensemble.toolbox import Toolbox
from cappella.tools.base import Passage, Tool, ToolResult, ToolServer
from cappella.types import Json

Key = tuple[str, str, str]
logger = logging.getLogger("cappella")
_given_up = set["asyncio.Task[ToolResult]"]()
"""Calls that were cancelled and have not ended: the event loop does not keep them."""


@dataclass(slots=True)
class _Shared:
    """A call that is being made, or has given a result, and how many wait for it."""

    task: "asyncio.Task[ToolResult]"
    waiters: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a call gave to one seat: its result, and the passages in it with their handles."""

    result: ToolResult
    sources: Sequence[Source] = ()


class ToolRun:
    """The tools of one run. `uses` has every call, in the order in which they ended.

    `nonce` is that of the marks around results. It is not the judge's: a member could forge that one's marks.
    """

    def __init__(
        self, servers: Mapping[str, ToolServer], withheld: AbstractSet[str], sources: Sources, emit: Emit
    ) -> None:
        self.uses: list[ToolUse] = []
        self.missing: dict[str, str] = {}
        self.nonce = fresh_nonce("results")
        self._servers = servers
        self._withheld = withheld
        self._sources = sources
        self._emit = emit
        self._calls: dict[Key, _Shared] = {}
        # A call may outlive the seat that made it first, so that it must tell nothing to that seat.
        self._context = contextvars.copy_context()

    def toolbox(self, tools: SeatTools) -> Toolbox:
        """The tools that a seat with these is offered now; those that offer none are noted in `missing`."""
        toolbox = Toolbox.of(tools, self._servers, self._withheld)
        self.missing |= toolbox.missing
        call_counter.add_missing(toolbox.missing)
        return toolbox

    def fail(self, seat: str, name: str, arguments: str, message: str) -> Found:
        """A call that cannot be made: the model is told why, and it counts."""
        self._emit(ToolCalled(seat, None, name, arguments))
        self._add(ToolUse(seat, None, name, arguments, time.monotonic(), 0.0, True, False, len(message)))
        return Found(ToolResult(message, is_error=True))

    async def call(self, seat: str, tool: Tool, arguments: Json, *, as_text: bool = False) -> Found:
        """What the tool gives. Cancelling this gives the call up, unless another seat waits for it as well."""
        written, began_at = json.dumps(arguments, ensure_ascii=False), time.monotonic()
        self._emit(ToolCalled(seat, tool.server, tool.name, written))
        shared, result = False, ToolResult("the call was cancelled", is_error=True)
        try:
            shared, result = await self._made(tool, arguments)
            return Found(result, self._sources.add(result.passages, seat))
        finally:
            took_s = time.monotonic() - began_at
            size = len(result.text) + sum(len(passage.text) for passage in result.passages)
            failed = result.is_error
            use = ToolUse(seat, tool.server, tool.name, written, began_at, took_s, failed, shared, size, as_text)
            self._add(use)

    def take_back(self, seat: str, sources: Sequence[Source]) -> None:
        """A seat does not read these, which one of its calls found."""
        self._sources.take_back(sources, seat)

    def _add(self, use: ToolUse) -> None:
        self.uses.append(use)
        self._emit(ToolReturned(use))
        call_counter.add_tool_use(use)

    async def _made(self, tool: Tool, arguments: Json) -> tuple[bool, ToolResult]:
        """The result, and whether the call was another one's."""
        key = (tool.server, tool.name, json.dumps(arguments, sort_keys=True))
        call, is_shared = self._calls.get(key), True
        if call is None:
            task = asyncio.create_task(self._result(tool, arguments), context=self._context.copy())
            call, is_shared = _Shared(task), False
            self._calls[key] = call
        call.waiters += 1
        try:
            # Not `await call.task`: a waiter that is cancelled would cancel it.
            await asyncio.wait({call.task})
        finally:
            call.waiters -= 1
            if not call.waiters and not call.task.done():
                del self._calls[key]
                _give_up(call.task)
        if call.task.result().is_error and self._calls.get(key) is call:
            # It may go well another time.
            del self._calls[key]
        return is_shared, call.task.result()

    async def _result(self, tool: Tool, arguments: Json) -> ToolResult:
        server = self._servers[tool.server]
        if server.problem is not None:
            # The problem may quote the server's log, and that the calls of others.
            return ToolResult(f"{tool.server} is not available now.", is_error=True)
        try:
            return _cleaned(await server.call(tool.name, arguments))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # A server that is stopped may cancel its calls.
        except Exception:
            logger.exception("the tool server %s broke its promise to raise nothing", tool.server)
        return ToolResult(f"{tool.server} gave no result.", is_error=True)


def _give_up(task: "asyncio.Task[ToolResult]") -> None:
    """Cancel a call. Nobody waits until it has ended: its server may not hear of it."""
    _given_up.add(task)
    task.add_done_callback(_given_up.discard)
    task.cancel()


def _cleaned(result: ToolResult) -> ToolResult:
    """Without halves of characters, which no request can hold."""
    passages = [Passage(*(_whole(getattr(each, part.name)) for part in fields(Passage))) for each in result.passages]
    relations = [replace(each, by=_whole(each.by)) for each in result.relations]
    return ToolResult(_whole(result.text), result.is_error, passages, relations)


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
