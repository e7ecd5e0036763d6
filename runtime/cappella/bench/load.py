"""Two kinds of load: a fixed number of runs in flight, or runs that start at random times."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import aiohttp

from cappella.bench.systems import BenchError, Reply, Sizes, System


@dataclass(frozen=True, slots=True)
class Load:
    """`concurrency` runs at once (a closed loop), or `rate_per_s` runs a second as a Poisson process (an open one)."""

    concurrency: int | None = None
    rate_per_s: float | None = None

    def __str__(self) -> str:
        return f"{self.concurrency} at once" if self.concurrency else f"{self.rate_per_s:g}/s"


@dataclass(slots=True)
class Batch:
    """The replies of one system in one batch."""

    seconds: float = 0.0
    replies: list[Reply] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def put(system: System, load: Load, sizes: Sizes, prompts: Iterator[str], runs: int) -> Batch:
    """Run one batch. Failures are counted and not repeated."""
    batch = Batch()
    began = time.monotonic()
    if load.concurrency:
        remaining = iter(range(runs))
        workers = min(load.concurrency, runs)
        await asyncio.gather(*(_closed_loop(system, sizes, prompts, remaining, batch) for _ in range(workers)))
    elif load.rate_per_s:
        await _open_loop(system, load.rate_per_s, sizes, prompts, runs, batch)
    batch.seconds = time.monotonic() - began
    return batch


async def _closed_loop(
    system: System, sizes: Sizes, prompts: Iterator[str], remaining: Iterator[int], batch: Batch
) -> None:
    for _ in remaining:
        await _ask(system, next(prompts), sizes, batch)


async def _open_loop(
    system: System, rate_per_s: float, sizes: Sizes, prompts: Iterator[str], runs: int, batch: Batch
) -> None:
    gaps = Random(0)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(runs):
            tasks.create_task(_ask(system, next(prompts), sizes, batch))
            await asyncio.sleep(gaps.expovariate(rate_per_s))


async def _ask(system: System, prompt: str, sizes: Sizes, batch: Batch) -> None:
    try:
        batch.replies.append(await system.ask(prompt, sizes))
    except (BenchError, aiohttp.ClientError, OSError) as error:
        batch.errors.append(str(error) or type(error).__name__)
    except Exception as error:
        # The official client is an optional dependency, so its errors are known by module.
        if type(error).__module__.split(".")[0] != "openai":
            raise
        batch.errors.append(str(error))
