"""Attacks through batches: rows that are as hostile as requests, many rows, many batches, and what is not one's own in them."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from campaign.case import BATCHES, CHAT, MARK, MODEL, USER, all_of, case, ended, unlike
from campaign.cases import form
from campaign.stored_cases import MESSAGES, file_of, lines
from campaign.target import Reply, Target

MAX_UNFINISHED = 100
LIMIT_ROWS = 50_000


def rows(bodies: Iterable[Any], url: str = CHAT) -> bytes:
    each = (
        {"custom_id": f"{MARK}{number}", "method": "POST", "url": url, "body": body}
        for number, body in enumerate(bodies)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in each)


async def created(target: Target, owner: str, content: bytes, endpoint: str = CHAT, **more: Any) -> Reply:
    file = await target.upload(owner, file_of(content), 120)
    wanted = {"input_file_id": file.body.get("id"), "endpoint": endpoint, "completion_window": "24h", **more}
    return await target.post(owner, BATCHES, wanted, 120)


@case
async def rows_as_hostile_as_requests(target: Target) -> str:
    """What is refused of a request is refused of a row: each has an error, none ends an engine, and no log has it."""
    chat = {"model": "cappella/default", "messages": [USER]}
    items = {"type": "array", "minItems": 1_000_000_000}
    bodies: list[dict[str, Any]] = [
        {**chat, **form(items)}, {**chat, "model": MODEL, **form(items)}, {**chat, "model": MODEL, "top_k": 2**70},
        {**chat, "messages": [{"role": "user", "content": "<|" * 900_000}]}, {**chat, "messages": [USER] * 3000},
        {**chat, "fusion": {f"f{number}": 1 for number in range(8000)}}, {**chat, "x": [[1]] * 300_000},
        {**chat, "n": 10**9}, {**chat, "model": MODEL, "n": 10**9}, {**chat, "fusion": {"samples": 10**6}},
        {**chat, "structured_outputs": {"regex": f"(?={MARK})b"}}, {**chat, "model": "cappella/none"},
        {**chat, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
    ]  # fmt: skip
    batch = await created(target, "ann", rows(bodies))
    done = await ended(target, batch.body.get("id"))
    found = done.get("request_counts") or {}
    deep = (
        rows([])
        + b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": '
        + b"[" * 100_000
        + b"\n"
    )
    odd = [deep, rows(bodies[:1], "/v1/judge"), rows(bodies[:1], "/mcp"), rows(["x"] * 1000), b"\xff\xfe" * 100_000,
           b"{" * 2_000_000, rows([{**chat, "stream": True}]), b"\n" * 1_000_000]  # fmt: skip
    refused = [await created(target, "ann", content) for content in odd]
    ended_ = [await ended(target, each.body["id"]) for each in refused if each.status == 200]
    logs = [path.name for path in target.own_logs() if MARK in path.read_text(errors="replace")]
    wrong = [str(each.get("status")) for each in ended_ if each.get("status") != "failed"]
    is_whole = done.get("status") == "failed" or found.get("failed") == len(bodies)
    return all_of(
        unlike([batch, *refused], 200, 400),
        not is_whole and f"of {len(bodies)} hostile rows {found} ended so, in a batch that {done.get('status')}",
        wrong and f"batches of nonsense are {wrong}",
        logs and f"a row stands in {', '.join(sorted(logs))}",
    )


@case
async def many_batches_and_rows(target: Target) -> str:
    """A key has so many batches and rows and no more; those that may be cost others little, and go at once when cancelled."""
    before = target.rss_mib()
    large, beyond = lines(LIMIT_ROWS, model=MODEL, max_tokens=200), lines(LIMIT_ROWS + 1, model=MODEL)
    first, over = await created(target, "ann", large), await created(target, "ann", beyond)
    file = (await target.upload("ann", file_of(lines(20, model=MODEL, max_tokens=400, ignore_eos=True)))).body["id"]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": MARK}}
    many = [await target.post("ann", BATCHES, wanted, 120) for _ in range(MAX_UNFINISHED + 5)]
    requests = [
        {"custom_id": str(number), "params": {"model": MODEL, "messages": [USER], "max_tokens": 4}}
        for number in range(2000)
    ]
    many += [await target.post("ann", MESSAGES, {"requests": requests}, 120)]
    others = [await target.ask("bob") for _ in range(3)]
    made = [first, *(each for each in many if each.status == 200)]
    grown = target.rss_mib() - before
    await asyncio.gather(*(target.post("ann", f"{BATCHES}/{each.body['id']}/cancel", {}, 120) for each in made))
    states = await asyncio.gather(*(ended(target, each.body["id"]) for each in made))
    left = [str(state.get("status")) for state in states if state.get("status") != "cancelled"]
    failed = await ended(target, over.body["id"]) if over.status == 200 else {"status": "failed"}
    return all_of(
        unlike([first, *others], 200),
        unlike(many, 200, 400),
        len(made) > MAX_UNFINISHED and f"{len(made)} batches were taken, and {MAX_UNFINISHED} may be",
        failed.get("status") != "failed" and "a batch of too many rows was taken",
        left and f"cancelled batches are {sorted(set(left))}",
        grown > 200 and f"the gateway grew by {grown:.0f} MiB",
    )


@case
async def rows_of_what_is_not_ones_own(target: Target) -> str:
    """A row calls no model that its key may not, reads no file of another, and has no more rights than a request."""
    row = {"model": MODEL, "messages": [USER], "max_tokens": 4}
    direct = await created(target, "bob", rows([row, {**row, "model": "asker"}, {**row, "model": "cappella/tools"}]))
    messages = [{"custom_id": "a", "params": row}]
    of_messages = await target.post("bob", MESSAGES, {"requests": messages})
    own = await created(target, "ann", rows([row]))
    done = await ended(target, own.body["id"])
    names = [name for name in (own.body["input_file_id"], done.get("output_file_id")) if name]
    wanted = [{"input_file_id": name, "endpoint": CHAT, "completion_window": "24h"} for name in names]
    stolen = [await target.post("bob", BATCHES, each) for each in wanted]
    told = [await _told(target, "bob", each) for each in (direct, of_messages) if each.status == 200]
    return all_of(
        unlike(stolen, 404),
        any('"status_code": 200' in each or '"succeeded"' in each for each in told)
        and "a row called what its key may not",
        len(told) == 0 and direct.status not in (400, 403) and f"the batch was {direct.status}",
    )


async def _told(target: Target, owner: str, batch: Reply) -> str:
    """All that one's own batch says once it is over."""
    base = MESSAGES if str(batch.body["id"]).startswith("msg") else BATCHES
    for _ in range(120):
        state = (await target.get(owner, f"{base}/{batch.body['id']}")).body
        if state.get("ended_at") or state.get("status") in ("completed", "failed"):
            break
        await asyncio.sleep(0.5)
    if base == MESSAGES:
        return json.dumps((await target.get(owner, f"{base}/{batch.body['id']}/results")).body)
    files = [state[name] for name in ("output_file_id", "error_file_id") if state.get(name)]
    return "".join([str((await target.get(owner, f"/v1/files/{name}/content")).body) for name in files])
