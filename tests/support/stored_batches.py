"""Batches that are put into a store without the gateway, and engines' part played: rows are ended by hand."""

from collections.abc import Sequence
from typing import Any

import orjson

from cappella.batch.store import BatchStore
from cappella.batch.types import Api, Batch, NewBatch, NewRow, Purpose, RowEnd, StoredFile
from support.scripted_engine import Json

CHAT = "/v1/chat/completions"


def body(text: str = "Hi", **fields: Any) -> Json:
    return {"model": "cappella/default", "messages": [{"role": "user", "content": text}], **fields}


def lines_of(bodies: Sequence[Json], path: str = CHAT) -> list[bytes]:
    """The lines of an input file, with the custom ids r1, r2, ..."""
    heads = ({"custom_id": f"r{number}", "method": "POST", "url": path} for number in range(1, len(bodies) + 1))
    return [orjson.dumps({**head, "body": each}) + b"\n" for head, each in zip(heads, bodies, strict=True)]


async def stored_file(
    store: BatchStore,
    content: bytes,
    key_id: str | None = None,
    lifetime_s: float = 1e6,
    purpose: Purpose = "batch",
) -> StoredFile:
    async with store.files.uploading(key_id) as upload:
        await upload.write(content)
        return await upload.keep("in.jsonl", purpose, lifetime_s)


async def stored_batch(
    store: BatchStore, bodies: Sequence[Json], key_id: str | None = None, api: Api = "openai", **fields: Any
) -> Batch:
    """A batch with these bodies, in progress; they are answered in their own order."""
    lines = lines_of(bodies, fields.get("endpoint", CHAT))
    if api == "anthropic":
        lines = [line.replace(b'"body":', b'"params":', 1) for line in lines]
    file = await stored_file(store, b"".join(lines), key_id, purpose="batch" if api == "openai" else "messages")
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    rows = [
        NewRow(number, f"r{number}", start, len(line), number.to_bytes(4))
        for number, (start, line) in enumerate(zip(starts, lines, strict=True), 1)
    ]
    new = {"key_id": key_id, "api": api, "endpoint": CHAT, "input_file_id": file.id, "window_s": 86400.0, **fields}
    return await store.create(NewBatch(**new), rows)


def good(text: str = "Yes.", tokens: int = 3) -> RowEnd:
    return RowEnd(200, "req-1", orjson.dumps({"answer": text}), tokens)


def bad(status_code: int = 400) -> RowEnd:
    return RowEnd(status_code, "req-2", orjson.dumps({"error": {"message": "no"}}))


async def content_of(store: BatchStore, file_id: str | None) -> list[Json]:
    """The lines of a result file."""
    assert file_id
    content = b"".join([piece async for piece in store.files.pieces(file_id)])
    return [orjson.loads(line) for line in content.splitlines()]
