"""`cappella batch`: uploads rows that have no answer yet, follows their batches, and writes what came of each row."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console

from cappella.cli.client import answer_file, batch_rows
from cappella.cli.client.address import base_url
from cappella.cli.client.answer_file import Row, Write
from cappella.cli.client.batch_results import answer_of, write_table
from cappella.cli.client.batch_server import BatchServer, is_over
from cappella.cli.client.batch_view import following
from cappella.errors import CappellaError, ConfigError
from cappella.vocabulary import Json

MAX_FILE_BYTES = 100 << 20
MAX_ROWS = 20_000
"""Of one batch: more rows become several."""
POLL_S = 2.0
TABLES = (".csv", ".parquet")
MARK = "cappella_batch"
"""The key of a batch's metadata that tells which file it is for."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of `cappella batch`: rows from `source`, answers to `out`; `target` is an address or a config."""

    source: Path
    out: Path
    target: str
    key: str | None
    asking: batch_rows.Asking
    window: str = "24h"
    whole_replies: bool = False
    accept_new_weights: bool = False

    @property
    def answers(self) -> Path:
        """The file of answers, which is `out` itself unless that is a table."""
        return self.out.with_name(f"{self.out.name}.jsonl") if self.out.suffix.lower() in TABLES else self.out

    @property
    def note(self) -> Path:
        """The file that says which batches of the server are this job's, while there are any."""
        return self.answers.with_name(f"{self.answers.name}.running")


async def run(job: Job) -> int:
    """Ask what has no answer yet; returns how many rows have an error. Raises ConfigError before anything is asked."""
    path, rows = batch_rows.read(job.source, job.asking)
    console = Console(stderr=True, highlight=False)
    failed = 0
    while True:
        # First what an earlier call has left at the server; then what is still without an answer.
        earlier = job.note.exists()
        with answer_file.opened(job.answers, rows) as (left, write):
            if not earlier:
                console.print(f"{len(rows)} rows, {len(rows) - len(left)} of them answered already", soft_wrap=True)
            if left or earlier:
                failed = await _ask(job, path, left, write, console)
        if not earlier:
            break
    if job.out != job.answers:
        write_table(job.source, job.out, answer_file.answers(job.answers), rows)
    console.print(
        f"Written: {job.out}" + (f" ({failed} rows failed: see {job.answers})" if failed else ""), soft_wrap=True
    )
    return failed


async def cancel(job: Job) -> int:
    """Cancel what runs of this job at the server; returns how many batches that were."""
    if not job.note.exists():
        return 0
    async with _server(job, Console(stderr=True, highlight=False)) as server:
        running = [each for each in await server.batches(MARK, _mark(job)) if not is_over(each)]
        for each in running:
            await server.cancel(each["id"])
    return len(running)


async def _ask(job: Job, path: str, left: Sequence[Row], write: Write, console: Console) -> int:
    """Submit the rows, unless batches of this job exist; returns how many rows have an error."""
    async with _server(job, console) as server:
        mark = _mark(job)
        batches = await server.batches(MARK, mark)
        if not batches:
            for part in _parts(path, left):
                file = await server.upload(part)
                batches.append(await server.create(file, path, job.window, {MARK: mark}))
        by_key = {row.key: row for row in left}
        failed, ended = 0, []
        async for batch in following(server, batches, console, POLL_S, job.accept_new_weights):
            failed += await _collect(job, server, batch, by_key, write)
            ended.append(batch)
        # From here on the rows are in the file: what is left is asked in new batches.
        with job.answers.open("a", encoding="utf-8") as written:
            answer_file.sync(written)
        job.note.unlink(missing_ok=True)
        for batch in ended:
            await server.forget(batch)
    for batch in ended:
        _require_completed(batch)
    return failed


async def _collect(job: Job, server: BatchServer, batch: Json, by_key: Mapping[str, Row], write: Write) -> int:
    """Write what came of the rows of a batch that has ended; returns how many have an error."""
    failed = 0
    for file in filter(None, (batch.get("output_file_id"), batch.get("error_file_id"))):
        async for line in server.lines(file):
            # A row that is not in the input any more is nobody's.
            if row := by_key.get(str(line.get("custom_id"))):
                reply = answer_of(line, job.whole_replies)
                failed += "error" in reply
                write(row, reply)
    return failed


def _require_completed(batch: Json) -> None:
    if batch["status"] == "failed":
        problems = [str(each.get("message")) for each in (batch.get("errors") or {}).get("data", ())]
        raise CappellaError(f"The server refused the rows: {'; '.join(problems[:3]) or 'it does not say why'}")
    if batch["status"] != "completed":
        raise CappellaError(f"The batch is {batch['status']}: the same command asks what is left.")


def _mark(job: Job) -> str:
    """What this job's batches have in their metadata; made at its first call, and kept until they are collected."""
    try:
        if not job.note.exists():
            job.note.write_text(json.dumps({MARK: secrets.token_hex(12), "server": job.target}))
        note = json.loads(job.note.read_text())
        mark, server = str(note[MARK]), str(note["server"])
    except (OSError, ValueError, LookupError) as error:
        raise ConfigError(
            str(job.note), f"cannot be used ({error})", "Remove it, or name another file with -o"
        ) from error
    if server != job.target:
        problem = f"the rows of {job.answers} are at {server}, and not collected yet"
        raise ConfigError(f"--server {job.target}", problem, f"Write --server {server}, or remove {job.note}")
    return mark


def _parts(path: str, rows: Sequence[Row]) -> "list[bytes]":
    """The rows as files of OpenAI's batch API, each of a size that servers take."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for row in rows:
        line = {"custom_id": row.key, "method": "POST", "url": path, "body": row.body}
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        if parts[-1] and (size + len(data) > MAX_FILE_BYTES or len(parts[-1]) >= MAX_ROWS):
            parts.append([])
            size = 0
        parts[-1].append(data)
        size += len(data)
    return [b"".join(part) for part in parts if part]


@asynccontextmanager
async def _server(job: Job, console: Console) -> AsyncIterator[BatchServer]:
    """The server at an address, or one of a config, which ends with the context."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as http:
        if "://" in job.target or not job.target.endswith((".yaml", ".yml")):
            yield BatchServer(http, base_url(job.target), job.key)
            return
        # Only here: vLLM's settings come with it.
        from cappella.bench import servers
        from cappella.engines.supervisor import default_log_dir

        log_dir = default_log_dir("batch")
        console.print(f"Starting the engines of {job.target} (logs in {log_dir})", soft_wrap=True)
        folder = job.answers.with_name(f"{job.answers.name}.batches")
        options = ("--batch-folder", str(folder))
        async with servers.gateway(Path(job.target), log_dir / "cappella", options) as url:
            yield BatchServer(http, url, job.key)
