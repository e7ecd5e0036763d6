"""Attacks through what models may call: tool servers that misbehave when they are called, loops without end, documents of others."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from campaign.case import BATCHES, CHAT, MARK, USER, all_of, case, ended, text_of, unlike
from campaign.hostile_model import Call, asks
from campaign.setting import MAX_TOOL_CALLS, OPEN, SECRET, SECRET_FILE, SECRET_WORDS, TOOLS_ENSEMBLE
from campaign.stored_cases import file_of
from campaign.target import Reply, Target

RECOVERY_S = 60
MAX_TOOL_LOG_BYTES = 8 << 20
SEARCH: Mapping[str, str] = {"query": "launch of the new ship"}
NAMES = ("search", f"{SECRET}_search", f"{OPEN}_search", f"{SECRET}-search", f"{SECRET}.search", f"{SECRET}/search")
PATHS = (SECRET_FILE, f"{SECRET}/{SECRET_FILE}", f"../{SECRET}/{SECRET_FILE}", f"{OPEN}/../{SECRET}/{SECRET_FILE}")


async def called(target: Target, owner: str, *rounds: Sequence[Call], forever: bool = False, **more: Any) -> Reply:
    """A run whose member and judge call this."""
    messages = [{"role": "user", "content": asks(rounds, forever=forever)}]
    return await target.ask(owner, TOOLS_ENSEMBLE, 120, **{"messages": messages, **more})


def uses(reply: Reply) -> list[dict[str, Any]]:
    """The calls of tools that a run tells."""
    fusion = reply.body.get("fusion") or {} if isinstance(reply.body, dict) else {}
    return list(fusion.get("tool_calls") or ())


@case
async def tool_servers_that_misbehave(target: Target) -> str:
    """They hang, flood, crash, fill memory and logs, and lie as callers say: runs end, and another key's calls are served soon after."""
    before = target.rss_mib()
    ways: list[Call] = [
        ("hang", {}), ("flood", {}), ("crash", {}), ("memory", {"bytes": 1 << 30}), ("big", {}), ("mixed", {}),
        ("change", {}), ("ask_back", {}), ("log", {"lines": 30_000}), ("children", {}), ("connect", {"port": 9}),
    ]  # fmt: skip
    replies = await asyncio.gather(*(called(target, "ann", [way]) for way in ways for _ in range(2)))
    grown = target.rss_mib() - before
    log = sum(path.stat().st_size for path in target.logs() if path.name.startswith("_tool-small"))
    return all_of(
        unlike(replies, 200),
        await _recovered(target),
        grown > 150 and f"the gateway grew by {grown:.0f} MiB",
        log > 4 * MAX_TOOL_LOG_BYTES and f"its logs have {log >> 20} MiB",
        any(MARK in log.read_text(errors="replace") for log in target.own_logs()) and "a log has the words of a call",
    )


async def _recovered(target: Target) -> str:
    """Another key's call is answered within a minute."""
    give_up_at = time.monotonic() + RECOVERY_S
    while time.monotonic() < give_up_at:
        reply = await called(target, "root", [("echo", {"text": "still here"})])
        if any(not use["is_error"] for use in uses(reply)):
            return ""
        await asyncio.sleep(2)
    return f"no call of another key was answered within {RECOVERY_S} s"


@case
async def members_that_call_without_end(target: Target) -> str:
    """A member and a judge that only ever call: each seat makes as many calls as it may, and the run ends."""
    wrong: list[Call] = [
        ("echo", "no JSON $N"),
        ("nowhere", {}),
        ("", {}),
        ("echo", {"text": 7}),
        ("echo", '{"text": $DEEP}'),
    ]
    loops: list[list[Call]] = [
        [("echo", {"text": "$N"})],
        [("echo", {"text": "$N"}, 500)],
        [("echo", {"text": "$LONG$N"})],
        wrong,
    ]
    replies = await asyncio.gather(
        *(called(target, "ann", each, forever=True) for each in loops for _ in range(2)),
        *(called(target, "ann", each, forever=True, fusion={"layers": 3, "samples": 8}) for each in loops[:2]),
    )
    # Eight samples of a seat in each of three layers, and the judge; those that cannot be made count, too.
    most = [2 * MAX_TOOL_CALLS] * (2 * len(loops)) + [(8 * 3 + 1) * MAX_TOOL_CALLS] * 2
    over = [len(uses(reply)) for reply, may in zip(replies, most, strict=True) if len(uses(reply)) > may]
    none = sum(not uses(reply) for reply in replies)
    return all_of(
        unlike(replies, 200, 502),
        over and f"runs made {over} calls of tools",
        none and f"{none} of {len(replies)} runs called nothing",
        await _recovered(target),
    )


@case
async def words_of_another_in_tools(target: Target) -> str:
    """What one key has a tool called with, and what the tool said at its end, reaches no other key and no log of ours."""
    rounds = [
        [("crash", {"text": MARK}), ("crash", {"text": MARK * 3})],
        [("echo", {"text": MARK})],
        [(MARK, {"a": MARK})],
    ]
    messages = [{"role": "user", "content": asks(rounds)}]
    replies = [await target.ask("ann", TOOLS_ENSEMBLE, 120, messages=messages) for _ in range(2)]
    # Of the same call as another's, a run makes its own.
    other = await called(target, "root", [("echo", {"text": "mine"})])
    pages = [await target.get("bob", path) for path in ("/ready", "/api/machine", "/v1/models", "/api/runs")]
    logs = [path.name for path in target.own_logs() if MARK in path.read_text(errors="replace")]
    modes = [path.name for path in (target.folder / "logs").glob("*.log") if path.stat().st_mode & 0o077]
    return all_of(
        unlike(replies, 200),
        MARK in text_of([*pages, other]) and "another key reads the words",
        logs and f"they stand in {', '.join(sorted(logs))}",
        modes and f"others may read {', '.join(sorted(modes))}",
        await _recovered(target),
    )


@case
async def documents_of_others(target: Target) -> str:
    """A key reads documents that are withheld from it neither by search, citation, kept response, batch, judgement, nor over /mcp."""
    seen = await called(target, "root", [(f"{SECRET}_search", SEARCH)])
    question = asks([[(f"{SECRET}_search", SEARCH)]])
    kept = await target.post("root", "/v1/responses", {"model": TOOLS_ENSEMBLE, "input": question}, 120)
    replies = [*await _asked(target), *await _continued(target, kept), *await _elsewhere(target)]
    logs = [path.name for path in target.logs() if SECRET_WORDS in path.read_text(errors="replace")]
    return all_of(
        SECRET_WORDS not in text_of([seen]) and "the key that may search them found nothing",
        SECRET_WORDS not in text_of([kept]) and "its kept response has nothing of them",
        SECRET_WORDS in text_of(replies) and f"{_where(replies)} of {len(replies)} replies tell what they say",
        logs and f"it stands in {', '.join(sorted(logs))}",
    )


def _where(replies: Sequence[Reply]) -> list[int]:
    return [number for number, reply in enumerate(replies) if SECRET_WORDS in text_of([reply])]


async def _asked(target: Target) -> list[Reply]:
    """All names and paths that a hostile member and judge may try, in the APIs and with the overrides that a run has."""
    tries: list[Call] = [(name, SEARCH) for name in NAMES]
    tries += [(name, {"path": path}) for name in ("read", f"{SECRET}_read", f"{OPEN}_read") for path in PATHS]
    rounds = [tries[start : start + MAX_TOOL_CALLS] for start in range(0, len(tries), MAX_TOOL_CALLS)]
    fusions = ({}, {"analysis_models": ["asker", "asker"], "model": "asker"}, {"layers": 2}, {"strategy": "debate"},
               {"include_events": True, "include_intermediate_responses": True, "progress": "reasoning"})  # fmt: skip
    runs = [called(target, "ann", each, fusion=fusion) for each in rounds for fusion in fusions]
    citing = [
        {"role": "user", "content": "Say [S1] and [S2]."},
        {"role": "assistant", "content": "[S1] says it [S2]."},
        USER,
    ]
    runs += [target.ask("ann", TOOLS_ENSEMBLE, messages=citing, fusion={"include_intermediate_responses": True})]
    return list(await asyncio.gather(*runs))


async def _continued(target: Target, kept: Reply) -> list[Reply]:
    """By the kept response of the key that may."""
    name = kept.body["id"]
    items = [item["id"] for item in kept.body["output"] if item.get("id")]
    base = {"model": TOOLS_ENSEMBLE, "input": "Repeat it."}
    named = [{"type": "item_reference", "id": each} for each in items]
    replies = [await target.post("ann", "/v1/responses", {**base, "previous_response_id": name})]
    replies += [
        await target.post("ann", "/v1/responses", {**base, "input": [*named, {"role": "user", "content": "x"}]})
    ]
    replies += [await target.get("ann", f"/v1/responses/{name}{end}") for end in ("", "/input_items", "?stream=true")]
    return [*replies, await target.get("ann", "/api/runs"), await target.get("ann", f"/api/runs/{kept.body['id'][5:]}")]


async def _elsewhere(target: Target) -> list[Reply]:
    """By a batch, a judgement, and a call over /mcp."""
    question = asks([[(name, SEARCH) for name in NAMES]])
    body = {"model": TOOLS_ENSEMBLE, "messages": [{"role": "user", "content": question}]}
    row = json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": body}).encode()
    file = (await target.upload("ann", file_of(row))).body["id"]
    wanted = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    done = await ended(target, (await target.post("ann", BATCHES, wanted)).body["id"])
    outputs = [done[name] for name in ("output_file_id", "error_file_id") if done.get(name)]
    replies = [await target.get("ann", f"/v1/files/{name}/content") for name in outputs]
    judged = {"ensemble": TOOLS_ENSEMBLE, "prompt": question, "answers": ["a", "b"]}
    replies += [await target.post("ann", "/v1/judge", judged, 120)]
    call = {"name": "compare", "arguments": {"question": question, "model": TOOLS_ENSEMBLE}}
    return [
        *replies,
        await target.post("ann", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}, 120),
    ]
