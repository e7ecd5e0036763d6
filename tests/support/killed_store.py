"""A process that ends rows of a batch, and tells of each, until it is killed."""

import asyncio
import sys
from pathlib import Path

from cappella.batch.store import BatchStore
from support.stored_batches import good


async def main(folder: Path, batch_id: str) -> None:
    store = BatchStore(folder)
    for row in await store.rows_left(batch_id, 1000):
        await store.end_row(row, good())
        print(row.number, flush=True)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
