"""Answers the rows of all batches: of each key the oldest batch first, the keys in turn, and many rows at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Protocol

from cappella.background import background
from cappella.batch.engines import Keep
from cappella.batch.opened import Opened
from cappella.batch.pauses import MAX_PAUSE_S, Pauses
from cappella.batch.progress import Meter
from cappella.batch.store import BatchStore
from cappella.batch.types import Batch, Row, RowEnd
from cappella.errors import BatchesUnavailable, BatchRefused, ConfigError

MIN_ROWS = 256
ROWS_PER_SEQUENCE = 4
"""More rows in flight fill no more places, and each costs memory that the garbage collector walks through."""
UNEXPECTED = "An unexpected error, which the server's log tells; it is tried again."

logger = logging.getLogger("cappella")


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
    def sequences(self) -> int:
        """How many sequences all engines run at once."""
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
                await asyncio.sleep(MAX_PAUSE_S)
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
    """The rows in flight under one config. What goes wrong with one batch pauses that one alone."""

    def __init__(self, store: BatchStore, work: Work, limits: Limits) -> None:
        self._store = store
        self._work = work
        self._limits = limits
        self._open: dict[str, Opened] = {}
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
                    await self._go_on()
                    async with background(self._store.changed.wait()) as changed:
                        either: set[asyncio.Future[Any]] = {changed, working}
                        await asyncio.wait(either, timeout=self._limits.poll_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for opened in self._open.values():
                    await opened.cancel()
        if not working.cancelled():
            working.result()

    async def _look(self) -> None:
        """Open new batches, and leave those that were deleted. Raises BatchesUnavailable."""
        found = {batch.id: batch for batch in await self._store.unfinished()}
        for batch_id in self._open.keys() - found.keys():
            await self._open.pop(batch_id).cancel()
        for batch in found.values():
            self._open.setdefault(batch.id, Opened(batch, Pauses(self._limits.retry_s))).renew(batch)

    async def _go_on(self) -> None:
        """Begin and end batches, and begin rows while there is room."""
        for opened in list(self._open.values()):
            if opened.may_go_on:
                await self._alone(opened, self._advance)
        while self._has_room and (next_one := self._next_batch()):
            await self._alone(next_one, self._begin_row)

    async def _alone(self, opened: Opened, work: Callable[[Opened], Awaitable[None]]) -> None:
        try:
            await work(opened)
        except Exception as error:  # noqa: BLE001 - it must stop no other batch
            self._pause(opened, error)

    def _pause(self, opened: Opened, error: BaseException) -> None:
        is_expected = isinstance(error, (BatchesUnavailable, BatchRefused, NotNow))
        if not is_expected:
            logger.error("%s does not go on for a moment", opened.batch.id, exc_info=error)
        self._store.pause(opened.batch.id, str(error) if is_expected else UNEXPECTED)
        opened.pause()

    async def _advance(self, opened: Opened) -> None:
        batch = opened.batch
        if opened.is_ending:
            await opened.cancel()
            await self._end(batch.id)
        elif not opened.secret:
            await self._begin(opened)
        elif opened.is_read and not opened.tasks:
            if batch.completed + batch.failed < batch.total:
                opened.read_again()
            else:
                await self._end(batch.id)

    async def _begin(self, opened: Opened) -> None:
        batch_id = opened.batch.id
        try:
            await self._store.begin(batch_id, self._work.weights)
        except BatchRefused as error:
            # No pause: it goes on as soon as somebody lets it.
            self._store.pause(batch_id, str(error))
            return
        opened.secret = await self._store.row_secret(batch_id)
        self._store.go_on(batch_id)

    async def _begin_row(self, opened: Opened) -> None:
        """The store is asked each time, so that the event loop serves requests between two rows."""
        row = await opened.first_row(self._store)
        if row is None and opened.given_back:
            opened.read_again()
        elif row is None:
            opened.is_read = True
        else:
            stored = await self._store.steps(row)
            opened.rows.popleft()
            order = self._last_turns[opened.batch.key_id] = next(self._orders)
            self._bytes += len(row.body)
            task = asyncio.create_task(self._answer(opened, row, order, stored))
            opened.tasks[row.number] = task
            task.add_done_callback(partial(self._ended, opened, row))

    @property
    def _has_room(self) -> bool:
        rows = sum(len(opened.tasks) for opened in self._open.values())
        useful = max(MIN_ROWS, ROWS_PER_SEQUENCE * self._work.sequences)
        return rows < min(useful, self._limits.max_rows) and self._bytes < self._limits.max_bytes

    def _next_batch(self) -> Opened | None:
        """Of the key whose turn was longest ago, the oldest batch with rows to begin."""
        oldest: dict[str | None, Opened] = {}
        for opened in self._open.values():
            if opened.has_rows:
                oldest.setdefault(opened.batch.key_id, opened)
        return min(oldest.values(), key=lambda each: self._last_turns.get(each.batch.key_id, 0), default=None)

    async def _answer(self, opened: Opened, row: Row, order: int, stored: Mapping[bytes, bytes]) -> None:
        """Answer the row, and store how it ended. Raises NotNow."""

        async def keep(key: bytes, value: bytes) -> None:
            await self._until_possible(row, lambda: self._store.keep_step(row, key, value))

        meter = self._store.progress.meter(row.batch_id)
        end = await self._work.answer(Job(opened.batch, row, order, opened.secret, stored, keep, meter))
        await self._until_possible(row, lambda: self._store.end_row(row, end))

    async def _until_possible(self, row: Row, work: Callable[[], Awaitable[Any]]) -> None:
        """Tried again while the disk is full, say, since the engines' work would be lost; the batch tells why it waits."""
        pauses, is_paused = Pauses(self._limits.retry_s), False
        while True:
            try:
                await work()
            except BatchesUnavailable as error:
                self._store.pause(row.batch_id, str(error))
                is_paused = True
                await asyncio.sleep(pauses.next_s())
                continue
            if is_paused:
                self._store.go_on(row.batch_id)
            return

    def _ended(self, opened: Opened, row: Row, task: "asyncio.Task[None]") -> None:
        del opened.tasks[row.number]
        self._bytes -= len(row.body)
        if not task.cancelled():
            if error := task.exception():
                opened.give_back()
                self._pause(opened, error)
            else:
                self._went_well(opened)
        self._store.changed.set()

    def _went_well(self, opened: Opened) -> None:
        opened.pauses.reset()
        if opened.may_go_on:
            self._store.go_on(opened.batch.id)

    async def _end(self, batch_id: str) -> None:
        """End a batch; a cancellation waits until its result files are written, or not. Raises BatchesUnavailable."""
        ending = asyncio.ensure_future(self._store.finish(batch_id))
        try:
            await asyncio.shield(ending)
        finally:
            await asyncio.wait({ending})
        del self._open[batch_id]
