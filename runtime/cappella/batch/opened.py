"""A batch whose rows are answered now: the rows that were read, those in flight, and the pause after an error."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from cappella.batch.pauses import Pauses
from cappella.batch.store import BatchStore
from cappella.batch.types import Batch, Row

PAGE_ROWS = 200
CANCELLED_AT_ONCE = 50
"""So many rows are cut between two turns of the event loop, which serves requests meanwhile."""


@dataclass(slots=True, eq=False)
class Opened:
    """`secret` is empty until the batch has begun. `after` is the rank of the last row that was read.

    Rows that were `given_back` are read again after all others. `tasks` answer rows, by the numbers of these.
    """

    batch: Batch
    pauses: Pauses
    secret: bytes = b""
    after: int = 0
    is_read: bool = False
    given_back: bool = False
    is_ending: bool = False
    goes_on_at: float = 0.0
    rows: deque[Row] = field(default_factory=deque)
    tasks: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)

    @property
    def may_go_on(self) -> bool:
        return time.monotonic() >= self.goes_on_at

    @property
    def has_rows(self) -> bool:
        """Whether rows may be begun now."""
        return bool(self.secret) and not self.is_ending and not self.is_read and self.may_go_on

    def renew(self, batch: Batch) -> None:
        """Take over how it is stored now; one that ends waits no longer for what its rows waited for."""
        self.batch = batch
        if not self.is_ending and (batch.status == "cancelling" or batch.expires_at <= time.time()):
            self.is_ending, self.goes_on_at = True, 0.0

    def pause(self) -> None:
        """After an error, or several at once."""
        if self.may_go_on:
            self.goes_on_at = time.monotonic() + self.pauses.next_s()

    def give_back(self) -> None:
        """A row was not answered."""
        self.given_back, self.is_read = True, False

    def read_again(self) -> None:
        """Read from the first row that has no end."""
        self.after, self.given_back, self.is_read = 0, False, False

    async def first_row(self, store: BatchStore) -> Row | None:
        """The row that is to begin next, which stays the first of `rows`; None if there is none, or not yet."""
        while not self.rows:
            # One that ends while the store is asked is among those found.
            in_flight = set(self.tasks)
            found = await store.rows_left(self.batch.id, PAGE_ROWS, self.after)
            if not found:
                return None
            self.after = found[-1].rank
            self.rows.extend(row for row in found if row.number not in in_flight)
        return self.rows[0]

    async def cancel(self) -> None:
        """Cut its rows in flight, and wait until their engines are free.

        The youngest go first: they wait, and would take the places of the others.
        """
        tasks = list(self.tasks.values())[::-1]
        for number, task in enumerate(tasks, 1):
            task.cancel()
            if number % CANCELLED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if tasks:
            await asyncio.wait(tasks)
