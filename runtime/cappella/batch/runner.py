"""Answers the rows of all batches: of each key the oldest batch first, the keys in turn, and many rows at a time."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

from cappella.background import background
from cappella.batch.engines import Keep
from cappella.batch.progress import Meter
from cappella.batch.store import BatchStore
from cappella.batch.types import Batch, Row, RowEnd
from cappella.errors import BatchesUnavailable, BatchRefused, ConfigError

PAGE_ROWS = 200
MAX_RETRY_S = 300.0

logger = logging.getLogger("cappella")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """So many rows are in flight that all engines have calls, and that a phase is long.

    The pauses between two looks at the store, and before what is not possible is tried again.
    """

    max_rows: int = 2000
    max_bytes: int = 256 << 20
    poll_s: float = 0.5
    retry_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A row to answer, the number `order` of all rows; `secret` and `meter` are its batch's, `stored` and `keep` for its calls."""

    batch: Batch
    row: Row
    order: int
    secret: bytes
    stored: Mapping[bytes, bytes]
    keep: Keep
    meter: Meter


class NotNow(Exception):
    """A row cannot be answered now, for no fault of its own."""


class Work(Protocol):
    """What answers rows under one config."""

    @property
    def weights(self) -> str:
        """Identifies the weights of all models."""
        ...

    @property
    def is_current(self) -> bool:
        """Whether the config is still the one that is served."""
        ...

    async def run(self) -> None:
        """Has to run while rows are answered."""
        ...

    async def answer(self, job: Job) -> RowEnd:
        """How the row ended. Raises NotNow."""
        ...


@dataclass(slots=True, eq=False)
class _Open:
    """A batch whose rows are answered; `after` is the rank of the last one that was read."""

    batch: Batch
    secret: bytes
    after: int = 0
    is_read: bool = False
    rows: deque[Row] = field(default_factory=deque)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


class Runner:
    """Answers rows until `run` is cancelled; `begin_work` is called at the start and after each reload."""

    def __init__(self, store: BatchStore, begin_work: Callable[[], Awaitable[Work]], limits: Limits = Limits()) -> None:
        self._store = store
        self._begin_work = begin_work
        self._limits = limits

    async def run(self) -> None:
        """Rows that are cut when this is cancelled begin anew the next time, with the calls that are stored."""
        while True:
            try:
                await _Session(self._store, await self._begin_work(), self._limits).run()
            except ConfigError as error:
                logger.error("batches wait: %s", error)
                await asyncio.sleep(MAX_RETRY_S)
            except Exception:
                logger.exception("batches do not go on for a moment")
                await asyncio.sleep(self._limits.retry_s)


@asynccontextmanager
async def running(
    store: BatchStore | None, begin_work: Callable[[], Awaitable[Work]], limits: Limits = Limits()
) -> AsyncIterator[None]:
    """Answers the rows of a store in this context, and deletes what has expired; then closes it."""
    if store is None:
        yield
        return
    try:
        async with background(Runner(store, begin_work, limits).run()), background(store.prune_forever()):
            yield
    finally:
        store.close()


class _Session:
    """The rows in flight under one config."""

    def __init__(self, store: BatchStore, work: Work, limits: Limits) -> None:
        self._store = store
        self._work = work
        self._limits = limits
        self._open: dict[str, _Open] = {}
        self._orders = count(1)
        self._last_turns: dict[str | None, int] = {}
        self._bytes = 0

    async def run(self) -> None:
        """Until the config is no longer served."""
        async with background(self._work.run()) as working:
            try:
                while self._work.is_current and not working.done():
                    self._store.changed.clear()
                    with suppress(BatchesUnavailable):
                        await self._look()
                        await self._finish()
                        await self._begin_rows()
                    async with background(self._store.changed.wait()) as changed:
                        either: set[asyncio.Future[Any]] = {changed, working}
                        await asyncio.wait(either, timeout=self._limits.poll_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for opened in self._open.values():
                    await _cancel(opened)
        if not working.cancelled():
            working.result()

    async def _look(self) -> None:
        """Open new batches, and end those that are cancelled or have expired."""
        found = {batch.id: batch for batch in await self._store.unfinished()}
        for batch_id in self._open.keys() - found.keys():
            await _cancel(self._open.pop(batch_id))
        for batch in found.values():
            if batch.status == "cancelling" or batch.expires_at <= time.time():
                if opened := self._open.get(batch.id):
                    await _cancel(opened)
                await self._end(batch.id)
                self._open.pop(batch.id, None)
            elif batch.id not in self._open:
                await self._begin(batch)

    async def _begin(self, batch: Batch) -> None:
        try:
            await self._store.begin(batch.id, self._work.weights)
        except BatchRefused as error:
            self._store.pause(batch.id, str(error))
            return
        self._store.go_on(batch.id)
        self._open[batch.id] = _Open(batch, await self._store.row_secret(batch.id))

    async def _begin_rows(self) -> None:
        while self._has_room and (opened := self._next_batch()):
            try:
                row, stored = await self._next_row(opened)
            except BatchesUnavailable:
                # Another key's file may be readable.
                self._last_turns[opened.batch.key_id] = next(self._orders)
                raise
            if row is None:
                opened.is_read = True
                continue
            order = self._last_turns[opened.batch.key_id] = next(self._orders)
            self._bytes += len(row.body)
            task = asyncio.create_task(self._answer(opened, row, order, stored))
            opened.tasks.add(task)
            task.add_done_callback(partial(self._ended, opened, row))

    async def _next_row(self, opened: _Open) -> tuple[Row | None, Mapping[bytes, bytes]]:
        """A row and its steps, so that the event loop begins one row after another, and serves requests between them."""
        if not opened.rows:
            opened.rows.extend(await self._store.rows_left(opened.batch.id, PAGE_ROWS, opened.after))
        if not opened.rows:
            return None, {}
        stored = await self._store.steps(opened.rows[0])
        row = opened.rows.popleft()
        opened.after = row.rank
        return row, stored

    @property
    def _has_room(self) -> bool:
        rows = sum(len(opened.tasks) for opened in self._open.values())
        return rows < self._limits.max_rows and self._bytes < self._limits.max_bytes

    def _next_batch(self) -> _Open | None:
        """Of the key whose turn was longest ago, the oldest batch with rows to begin."""
        oldest: dict[str | None, _Open] = {}
        for opened in self._open.values():
            if not opened.is_read:
                oldest.setdefault(opened.batch.key_id, opened)
        return min(oldest.values(), key=lambda each: self._last_turns.get(each.batch.key_id, 0), default=None)

    async def _answer(self, opened: _Open, row: Row, order: int, stored: Mapping[bytes, bytes]) -> None:
        """Answer the row, and store how it ended."""

        async def keep(key: bytes, value: bytes) -> None:
            await self._until_possible(row, lambda: self._store.keep_step(row, key, value))

        meter = self._store.progress.meter(row.batch_id)

        async def answer() -> RowEnd:
            nonlocal stored
            job = Job(opened.batch, row, order, opened.secret, stored, keep, meter)
            try:
                return await self._work.answer(job)
            except NotNow:
                stored = await self._until_possible(row, lambda: self._store.steps(row))
                raise

        end = await self._until_possible(row, answer)
        await self._until_possible(row, lambda: self._store.end_row(row, end))

    async def _until_possible(self, row: Row, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, tried again while the disk is full, say; the batch tells why it waits."""
        pause_s, is_paused = self._limits.retry_s, False
        while True:
            try:
                result = await work()
            except (BatchesUnavailable, NotNow) as error:
                self._store.pause(row.batch_id, str(error))
                is_paused = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RETRY_S)
                continue
            if is_paused:
                self._store.go_on(row.batch_id)
            return result

    def _ended(self, opened: _Open, row: Row, task: "asyncio.Task[None]") -> None:
        opened.tasks.discard(task)
        self._bytes -= len(row.body)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a row of %s was not answered", row.batch_id, exc_info=error)
        self._store.changed.set()

    async def _finish(self) -> None:
        """End the batches whose rows have all ended."""
        for opened in [each for each in self._open.values() if each.is_read and not each.tasks]:
            if await self._store.rows_left(opened.batch.id, 1, 0):
                # One was not answered: see `_ended`.
                opened.after, opened.is_read = 0, False
                continue
            await self._end(opened.batch.id)
            del self._open[opened.batch.id]

    async def _end(self, batch_id: str) -> None:
        """End a batch; a cancellation waits until its result files are written, or not. Raises BatchesUnavailable."""
        ending = asyncio.ensure_future(self._store.finish(batch_id))
        try:
            await asyncio.shield(ending)
        except BatchesUnavailable as error:
            self._store.pause(batch_id, str(error))
            raise
        finally:
            await asyncio.wait({ending})


async def _cancel(opened: _Open) -> None:
    """Cut its rows in flight, and wait until their engines are free."""
    tasks = set(opened.tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
