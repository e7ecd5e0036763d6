"""The attacks, each with what is right; all are bounded, and go to loopback only."""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from campaign.case import CHAT, MARK, MODEL, case, unlike
from campaign.setting import CLIENT_TIMEOUT_S
from campaign.target import TOKENS_PER_MINUTE, Target

OF_OTHERS = 6
"""As many sequences of one engine the bystander may hold."""


def form(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


@case
async def schemas_of_many_items(target: Target) -> str:
    """Sixty bytes that take all memory: refused before they reach an engine."""
    many = 1_000_000_000
    items = ({"type": "array", "minItems": many}, {"type": "array", "maxItems": many},
             {"type": "array", "prefixItems": [{}], "minItems": many},
             {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}},
              "$defs": {"a": {"type": "array", "minItems": 9000, "items": {"type": "array", "minItems": 9000}}}})  # fmt: skip
    replies = [await target.ask("ann", **form(schema)) for schema in items]
    replies += [await target.ask("ann", MODEL, **form(items[0]))]
    replies += [await target.ask("ann", MODEL, structured_outputs={"json": json.dumps(items[0])})]
    text = {"format": {"type": "json_schema", "name": "x", "schema": items[0]}}
    replies += [await target.post("ann", "/v1/responses", {"model": "cappella/default", "input": "x", "text": text})]
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": items[0]}}},
    }
    replies += [await target.ask("ann", MODEL, tools=[tool], tool_choice="required")]
    return unlike(replies, 400)


@case
async def forms_that_an_engine_refuses(target: Target) -> str:
    """A refusal is the request's fault: 400, and no engine is ill of it."""
    tag = json.dumps({"type": "structural_tag", "format": {"type": "any_text"}})
    bodies: list[dict[str, Any]] = [
        {"structured_outputs": {"structural_tag": tag}},
        {"structured_outputs": {"regex": f"(?={MARK})b"}},
        {"structured_outputs": {"grammar": f"root ::= {MARK} ((("}},
        form({"type": "array", "uniqueItems": True, "items": {"type": "string"}}),
        form({"type": "object", "not": {"required": ["a"]}}),
        form({"type": "string", "format": "no-such-format"}),
    ]
    fusion = {"analysis": "off", "early_prefill": False}
    replies = [await target.ask("ann", **body) for body in bodies for _ in range(4)]
    replies += [await target.ask("ann", **body, fusion=fusion) for body in bodies for _ in range(4)]
    replies += [await target.ask("ann", MODEL, **body) for body in bodies for _ in range(4)]
    return unlike(replies, 200, 400)


@case
async def integers_beyond_64_bits(target: Target) -> str:
    replies = [await target.ask("ann", MODEL, **{name: 2**70}) for name in ("top_k", "seed", "max_tokens", "min_tokens")
               for _ in range(6)]  # fmt: skip
    return unlike(replies, 400)


@case
async def readers_that_stall(target: Target) -> str:
    """Their sequences come back within the client's timeout, and the audit log has a line for each."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True, "n": 16,
                       "logprobs": True, "top_logprobs": 20, "max_tokens": 600, "ignore_eos": True}).encode()  # fmt: skip
    lines_before = len((target.folder / "audit.jsonl").read_text().splitlines())
    with ExitStack() as stack:
        for _ in range(3):
            raw = stack.enter_context(target.connect())
            raw.sendall(target.head("ann", CHAT, len(body)) + body)
        # They are so large that they run one after the other, each until the buffers between it and its reader are full.
        held, give_up_at = OF_OTHERS + 1.0, time.monotonic() + 6 * CLIENT_TIMEOUT_S + 120
        await asyncio.sleep(CLIENT_TIMEOUT_S)
        while held > OF_OTHERS and time.monotonic() < give_up_at:
            await asyncio.sleep(1)
            held = await target.metric(r"vllm:num_requests_(?:running|waiting)\{[^}]*soprano[^}]*\}")
        reply = await target.ask("ann", MODEL, n=16, max_tokens=4, timeout_s=90)
    await asyncio.sleep(1)
    lines = (target.folder / "audit.jsonl").read_text().splitlines()[lines_before:]
    told = sum(record["kind"] == "call" and record["model"] == MODEL for record in map(json.loads, lines))
    wrong = [f"{held:g} requests still run"] if held > OF_OTHERS else []
    wrong += [f"a later call was {reply.status}"] if reply.status != 200 else []
    wrong += [f"{told} audit lines for 4 calls"] if told < 4 else []
    return "; ".join(wrong)


@case
async def texts_of_special_tokens(target: Target) -> str:
    """No text fits a context and holds the event loop."""
    texts = ["<|" * 1_950_000, "x " * 1_900_000]
    content = [{"role": "user", "content": text} for text in texts]
    parts = [{"role": "user", "content": [{"type": "text", "text": "<|"}] * 100_000}]
    bodies = [{"model": name, "messages": [turn]} for turn in content for name in ("cappella/default", MODEL)]
    bodies += [{"model": "cappella/default", "messages": parts}]
    return unlike(await asyncio.gather(*(target.post("ann", CHAT, body, 120) for body in bodies)), 400, 413)


@case
async def more_tokens_than_the_limit(target: Target) -> str:
    """A key of 300 tokens a minute gets few more, whatever form it asks in."""
    forms: Sequence[dict[str, Any]] = (
        {"stream": True, "stream_interval": 1_000_000},
        {"n": 16, "logprobs": True, "top_logprobs": 20},
    )
    answered = 0
    for number in range(12):
        reply = await target.ask("lim", MODEL, max_tokens=300, min_tokens=300, ignore_eos=True, **forms[number % 2])
        answered += reply.status == 200
    return f"{answered} of 12 calls of 300 tokens were answered" if answered > 1 + TOKENS_PER_MINUTE // 300 else ""


@case
async def what_another_asked(target: Target) -> str:
    """Neither the state of engines, nor the prefix cache, nor a log tells a text of another key."""
    await target.ask("ann", structured_outputs={"regex": f"(?={MARK})b"})
    await target.ask("ann", MODEL, structured_outputs={"choice": [MARK * 10, "b"]}, max_tokens=4)
    pages = [await target.get("bob", path) for path in ("/ready", "/api/machine", "/v1/models", "/api/runs")]
    wrong = ["another key reads the text"] if any(MARK in json.dumps(page.body) for page in pages) else []
    logs = [path for path in target.own_logs() if MARK in path.read_text(errors="replace")]
    wrong += [f"it stands in {', '.join(sorted(path.name for path in logs))}"] if logs else []
    # A text of its own in every pass: the second key has asked those of earlier passes itself.
    text = f"File {secrets.token_hex(8)}. " + "The patient of room four takes nine pills a day. " * 18
    messages = [{"role": "user", "content": text}]
    for owner in ("ann", "root"):
        reply = await target.post(owner, CHAT, {"model": MODEL, "messages": messages, "max_tokens": 2})
    details = reply.body["usage"].get("prompt_tokens_details") or {} if reply.status == 200 else {}
    wrong += ["cached_tokens tells that it was asked"] if details.get("cached_tokens") else []
    modes = {path.name for path in (target.folder / "logs").glob("*.log") if path.stat().st_mode & 0o077}
    wrong += [f"others may read {', '.join(sorted(modes))}"] if modes else []
    return "; ".join(wrong)


@case
async def more_answers_than_letters(target: Target) -> str:
    fusions = [{"samples": 16, "temperature": 0.5}, {"samples": 16, "temperature": 0.5, "strategy": "vote"}]
    return unlike([await target.ask("ann", fusion=fusion) for fusion in fusions], 400)


@case
async def deadlines_in_the_queue(target: Target) -> str:
    """While one key holds all the sequences that it may, the run of another ends by its deadline."""
    hold = [asyncio.create_task(target.ask("ann", MODEL, n=16, max_tokens=700, ignore_eos=True)) for _ in range(4)]
    await asyncio.sleep(1)
    reply = await target.ask("bob", fusion={"deadline_seconds": 3})
    for task in hold:
        task.cancel()
    await asyncio.gather(*hold, return_exceptions=True)
    return f"{reply.status} after {reply.took_s:.1f} s for a deadline of 3" if reply.took_s > 6 else ""


@case
async def bodies_that_trickle(target: Target) -> str:
    """A connection whose body is not read any more does not stay."""
    with ExitStack() as stack:
        raws = [stack.enter_context(target.connect()) for _ in range(40)]
        for number, raw in enumerate(raws):
            raw.sendall(target.head("no-key" if number % 2 else "ann", "/v1/none" if number % 3 else CHAT, 10**9))
            raw.setblocking(False)
        give_up_at = time.monotonic() + 3 * CLIENT_TIMEOUT_S + 5
        open_ = set(raws)
        while open_ and time.monotonic() < give_up_at:
            await asyncio.sleep(1)
            open_ = {raw for raw in open_ if _is_open(raw)}
    return f"{len(open_)} of 40 connections are still open" if open_ else ""


def _is_open(raw: Any) -> bool:
    try:
        raw.send(b" ")
        while data := raw.recv(65536):
            del data
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@case
async def idle_connections(target: Target) -> str:
    """They shut nobody out."""
    with ExitStack() as stack:
        for _ in range(800):
            stack.enter_context(target.connect())
        replies = [await target.ask("bob") for _ in range(3)]
    return unlike(replies, 200)


@case
async def bodies_held_in_memory(target: Target) -> str:
    """Bodies whose last byte is missing take bounded memory."""
    before = target.rss_mib()
    body = b" " * 3_900_000
    with ExitStack() as stack:
        raws = [stack.enter_context(target.connect()) for _ in range(60)]
        for raw in raws:
            raw.setblocking(False)
            with suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(raw, target.head("ann", CHAT, len(body) + 1) + body)
        grown = target.rss_mib() - before
    return f"the gateway grew by {grown:.0f} MiB" if grown > 150 else ""
