"""Gives the passages of an index their vectors, a few at a time."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from cappella.engines.base import Engine
from cappella.errors import EngineError, EngineRejected
from cappella.tools.documents.index import Index
from cappella.tools.documents.index_rows import StoredPassage
from cappella.tools.documents.vectors import unit

BATCH = 32
NONE = b""
"""In the place of the vector of a text that the engine refuses."""

logger = logging.getLogger("cappella")
T = TypeVar("T")


async def embed_missing(path: Path, languages: Sequence[str], engine: Engine, writer: Executor) -> int:
    """Embed the passages without a vector, with each write on the thread of `writer`; how many got one.

    Ends early, with a warning in the log, if the engine or numpy cannot do it now.
    """
    embedder, done = engine.status.model, 0

    async def on_thread(work: Callable[[Index], T]) -> T:
        def opened() -> T:
            with closing(Index(path, languages)) as index:
                return work(index)

        return await asyncio.get_running_loop().run_in_executor(writer, opened)

    while engine.status.accepts_requests:
        batch = await on_thread(lambda index: index.without_vectors(embedder, BATCH))
        if not batch:
            break
        try:
            vectors = await _vectors(engine, batch)
        except (EngineError, ImportError) as error:
            logger.warning("documents are not embedded now: %s", error)
            break
        await on_thread(lambda index: index.put_vectors(embedder, vectors))  # noqa: B023 - awaited in the same turn
        done += len(vectors)
    return done


async def _vectors(engine: Engine, batch: Sequence[StoredPassage]) -> dict[int, bytes]:
    """The vectors of a batch; of a refused one, text by text. Raises EngineError and ImportError."""
    try:
        given = await engine.embed([each.text for each in batch])
    except EngineRejected as error:
        if len(batch) > 1:
            parts = [await _vectors(engine, [each]) for each in batch]
            return {passage: vector for part in parts for passage, vector in part.items()}
        logger.warning("%s, %s is not embedded: %s", batch[0].path, batch[0].place, error)
        return {batch[0].id: NONE}
    return {each.id: _stored(vector) for each, vector in zip(batch, given.vectors, strict=True)}


def _stored(vector: Sequence[float]) -> bytes:
    array = unit(vector)
    return NONE if array is None else bytes(array.astype("<f4").tobytes())
