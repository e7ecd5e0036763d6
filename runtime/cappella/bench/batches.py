"""Measures the same kind of prompts as requests, so many at once, and as the rows of one batch, on the same server."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cappella.bench.compare import Print, open_session, require_ensemble
from cappella.bench.engine_watch import Watch, watching
from cappella.bench.load import Load, put
from cappella.bench.servers import gateway
from cappella.bench.systems import Ensemble, Sizes
from cappella.config import Config
from cappella.errors import CappellaError, ConfigError
from cappella.types import Json

POLL_S = 0.25
PATH = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What to measure, on the server at `url`, or on one that is started."""

    config_path: Path
    url: str | None
    config: Config
    ensemble: str
    rows: int
    at_once: int
    sizes: Sizes
    prompts: Iterator[str]

    @property
    def members(self) -> list[str]:
        return list(dict.fromkeys(seat.model for seat in self.config.ensembles[self.ensemble].seats))


@dataclass(frozen=True, slots=True)
class Way:
    """How `rows` were answered in one of the two ways; `ends` counts the replies by the status of their run."""

    name: str
    rows: int
    seconds: float
    ends: Mapping[str, int]
    errors: Sequence[str]
    watch: Watch

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds

    def figures(self) -> dict[str, Any]:
        """As in the file of figures."""
        watch = self.watch
        return {
            "rows": self.rows,
            "ends": dict(self.ends),
            "errors": list(self.errors),
            "seconds": round(self.seconds, 2),
            "rows_per_s": round(self.rows_per_s, 3),
            "an_engine_busy": watch.any_busy_share,
            "engines": {
                name: {
                    "calls": {role: count for (model, role), count in watch.calls.items() if model == name},
                    "busy_s": round(watch.busy_s[name], 1),
                }
                for name in sorted({model for model, _ in watch.calls} | set(watch.busy_s))
            },
            "swaps": watch.swaps,
        }


async def measure(plan: BatchPlan, log_dir: Path, log: Print) -> tuple[Way, Way]:
    """Online first, then as a batch. Raises ConfigError, and CappellaError if the server takes no batch."""
    _require_known(plan)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_session())
        url = plan.url
        if url is None:
            log(f"Starting {len(plan.config.models)} engines (logs in {log_dir})")
            url = await stack.enter_async_context(gateway(plan.config_path, log_dir / "cappella"))
        system = Ensemble("cappella", http, url, plan.ensemble, plan.members, {})
        log("Warming up")
        first = await put(system, Load(plan.at_once), plan.sizes, plan.prompts, min(plan.at_once, plan.rows))
        if not first.replies:
            raise CappellaError(f"No reply: {first.errors[0]}")
        log(f"{plan.rows} requests, {plan.at_once} at once")
        online = await _online(plan, system, http, url)
        log(f"{plan.rows} rows of a batch")
        return online, await _batch(plan, system, http, url)


async def _online(plan: BatchPlan, system: Ensemble, http: aiohttp.ClientSession, url: str) -> Way:
    async with watching(http, url) as watch:
        done = await put(system, Load(plan.at_once), plan.sizes, plan.prompts, plan.rows)
    ends = Counter(str(reply.trace["fusion"]["status"]) for reply in done.replies if reply.trace)
    ends["error"] += len(done.errors)
    return Way(f"{plan.at_once} at once", plan.rows, done.seconds, +ends, sorted(set(done.errors)), watch)


async def _batch(plan: BatchPlan, system: Ensemble, http: aiohttp.ClientSession, url: str) -> Way:
    bodies = [system.body(prompt, plan.sizes) for prompt in islice(plan.prompts, plan.rows)]
    async with watching(http, url) as watch:
        began = time.monotonic()
        batch = await _answered(http, url, b"".join(map(_line, range(plan.rows), bodies)))
        seconds = time.monotonic() - began
    if batch["status"] != "completed":
        raise CappellaError(f"The batch is {batch['status']}: {batch['errors']}")
    replies = [await _lines(http, url, batch[kind]) for kind in ("output_file_id", "error_file_id")]
    for kind in ("input_file_id", "output_file_id", "error_file_id"):
        if batch[kind]:
            await _call(http, "DELETE", f"{url}/v1/files/{batch[kind]}")
    bodies = [line["response"]["body"] for part in replies for line in part]
    ends = Counter(str(body["fusion"]["status"]) if "fusion" in body else "error" for body in bodies)
    errors = sorted({str(body["error"]["message"]) for body in bodies if "error" in body})
    return Way("one batch", plan.rows, seconds, ends, errors, watch)


async def _answered(http: aiohttp.ClientSession, url: str, rows: bytes) -> Json:
    """A batch of these rows that has ended."""
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", rows, filename="rows.jsonl", content_type="application/jsonl")
    file = await _call(http, "POST", f"{url}/v1/files", data=form)
    asked = {"input_file_id": file["id"], "endpoint": PATH, "completion_window": "24h"}
    batch = await _call(http, "POST", f"{url}/v1/batches", json=asked)
    while batch["status"] not in OVER:
        await asyncio.sleep(POLL_S)
        batch = await _call(http, "GET", f"{url}/v1/batches/{batch['id']}")
    return batch


def _line(number: int, body: Json) -> bytes:
    asked = {name: value for name, value in body.items() if not name.startswith("stream")}
    return orjson.dumps({"custom_id": f"row-{number}", "method": "POST", "url": PATH, "body": asked}) + b"\n"


async def _lines(http: aiohttp.ClientSession, url: str, file_id: str | None) -> list[Json]:
    if file_id is None:
        return []
    async with http.get(f"{url}/v1/files/{file_id}/content") as reply:
        return [json.loads(line) for line in (await reply.text()).splitlines()]


async def _call(http: aiohttp.ClientSession, method: str, url: str, **how: Any) -> Json:
    async with http.request(method, url, **how) as reply:
        answer: Json = await reply.json()
        if reply.status != 200:
            raise CappellaError(f"{method} {url}: {answer['error']['message']}")
        return answer


def _require_known(plan: BatchPlan) -> None:
    require_ensemble(plan.config, plan.ensemble)
    if plan.url is None and plan.config.server.batch is None:
        problem = "server.batch is not set, so that its server takes no batches"
        raise ConfigError(str(plan.config_path), problem, "Add `server: {batch: {folder: batches}}`")
