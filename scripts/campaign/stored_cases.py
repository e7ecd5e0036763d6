"""Attacks through what came later: bodies of many values, uploads, batches, judgements and tools over `/mcp`."""

import asyncio
import json
from typing import Any

from campaign.case import BATCHES, CHAT, MARK, MODEL, USER, case, ended, unlike
from campaign.target import Target, encoded

MESSAGES = "/v1/messages/batches"
BEGIN = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FIELD = b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n\r\n"
END = b"--x--\r\n"


def file_of(content: bytes, name: str = "rows.jsonl") -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return BEGIN + head.encode() + content + b"\r\n" + END


def lines(count: int, **fields: Any) -> bytes:
    rows = (
        {"custom_id": f"{MARK}{number}", "method": "POST", "url": CHAT, "body": {"messages": [USER], **fields}}
        for number in range(count)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


async def begun(target: Target, count: int, **fields: Any) -> tuple[str, str]:
    """The ids of a file of ann's and of its batch."""
    file = (await target.upload("ann", file_of(lines(count, **fields)))).body["id"]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": MARK}}
    return file, (await target.post("ann", BATCHES, wanted)).body["id"]


@case
async def bodies_of_many_values(target: Target) -> str:
    """Small ones that took the event loop for seconds, and large ones that took a thread for hours."""
    options, chat = {f"f{number}": 1 for number in range(8000)}, {"model": "cappella/default", "messages": [USER]}
    calls = [{"function": {"name": f"t{number}", "arguments": {}}} for number in range(12_000)]
    results = [{"role": "tool", "content": "x", "tool_name": f"t{11_999 - number}"} for number in range(2000)]
    turns = [USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    question = {"name": "ask_panel", "arguments": {"question": "x", **{f"a{number}": 1 for number in range(200_000)}}}
    bodies: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {**chat, "fusion": options}),
        (CHAT, {**chat, "fusion": {f"f{number}": 1 for number in range(250_000)}}),
        (CHAT, {**chat, "messages": [{"role": "user", "content": 7}] * 2000}),
        (CHAT, {**chat, "x": [[1]] * 600_000}),
        ("/api/chat", {"model": "cappella/default", "messages": turns, "stream": False}),
        ("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": question}),
        ("/v1/judge", {"model": MODEL, "prompt": "x", "answers": ["x" * 100_000] * 26, "want": ["preference"]}),
        (MESSAGES, {"requests": [{"custom_id": "a", "params": {"x": [[1]] * 600_000}}]}),
    ]
    ready = [(path, await asyncio.to_thread(encoded, body)) for path, body in bodies]
    tasks = [target.post("ann", path, body, 120) for path, body in ready for _ in range(3)]
    return unlike(await asyncio.gather(*tasks), 400)


@case
async def forms_of_many_parts(target: Target) -> str:
    """A form has a bound on all but its file, and what is refused leaves nothing."""
    before = target.rss_mib()
    forms = [BEGIN + FIELD % b'name="f"' * 400_000, BEGIN + FIELD % (b'a="b";' * 600) * 2000]
    forms += [BEGIN + b"--x\r\n\r\n\r\n" * 1_000_000]
    replies = await asyncio.gather(*(target.upload("ann", form + END, 120) for form in forms for _ in range(3)))
    grown, listed = target.rss_mib() - before, await target.get("ann", "/v1/files")
    wrong = [unlike(replies, 413)]
    wrong += [f"the gateway grew by {grown:.0f} MiB"] if grown > 150 else []
    wrong += (
        [f"{len(listed.body['data'])} files are left"]
        if any(each["bytes"] == 2 for each in listed.body["data"])
        else []
    )
    return "; ".join(filter(None, wrong))


@case
async def things_of_another(target: Target) -> str:
    """Nobody reads, cancels or deletes files, batches, results and runs of another key, or sees that they are there."""
    file, batch = await begun(target, 2, model=MODEL, max_tokens=4)
    messages = [{"custom_id": "a", "params": {"model": MODEL, "messages": [USER], "max_tokens": 4}}]
    other = (await target.post("ann", MESSAGES, {"requests": messages})).body["id"]
    output = (await ended(target, batch)).get("output_file_id") or file
    run = (await target.get("ann", "/api/runs")).body["data"]
    paths = [f"/v1/files/{each}{end}" for each in (file, output) for end in ("", "/content")]
    paths += [f"{BATCHES}/{batch}", f"{MESSAGES}/{other}", f"{MESSAGES}/{other}/results"]
    paths += [f"/api/runs/{each['id']}" for each in run[:1]]
    replies = [await target.get("bob", path) for path in paths]
    replies += [await target.send("DELETE", "bob", path) for path in (f"/v1/files/{file}", f"{MESSAGES}/{other}")]
    changes = [f"{BATCHES}/{batch}/cancel", f"{BATCHES}/{batch}/resume", f"{MESSAGES}/{other}/cancel"]
    replies += [await target.post("bob", path, {"accept_new_weights": True}) for path in changes]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    replies += [await target.post("bob", BATCHES, wanted)]
    lists = [await target.get("bob", path) for path in ("/v1/files", BATCHES, MESSAGES)]
    wrong = [unlike(replies, 404)]
    wrong += ["a list shows them"] if any(each.body["data"] for each in lists) else []
    wrong += (
        ["a log has the name of a row"]
        if any(MARK in log.read_text(errors="replace") for log in target.own_logs())
        else []
    )
    return "; ".join(filter(None, wrong))


@case
async def a_batch_of_long_answers(target: Target) -> str:
    """A batch takes what others leave; cancelled, it gives all back."""
    _, batch = await begun(target, 300, model=MODEL, n=8, max_tokens=400, ignore_eos=True)
    await asyncio.sleep(8)
    replies = [await target.ask("bob") for _ in range(5)]
    await target.post("ann", f"{BATCHES}/{batch}/cancel", {})
    status = (await ended(target, batch)).get("status")
    wrong = [unlike(replies, 200)]
    wrong += [f"the batch is {status}"] if status != "cancelled" else []
    return "; ".join(filter(None, wrong))
