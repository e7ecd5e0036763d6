"""Attacks through `/mcp`: messages of any form, calls that are not one's own, and clients that leave."""

import asyncio
from typing import Any

from campaign.case import CHAT, MARK, MODEL, all_of, case, text_of, unlike
from campaign.setting import TOOLS_ENSEMBLE
from campaign.target import Reply, Target, encoded

MCP = "/mcp"
LEAVING = 60
ALL_LEFT_S = 20


def message(method: str, params: Any = None, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {} if params is None else params}


def call(tool: str, given: Any, number: Any = 1, **more: Any) -> dict[str, Any]:
    return message("tools/call", {"name": tool, "arguments": given, **more}, number)


def ask(question: str, **more: Any) -> dict[str, Any]:
    return call("ask_panel", {"question": question, **more})


@case
async def messages_of_any_form(target: Target) -> str:
    """None takes the server from others, is a fault of ours, or is answered with more than an error."""
    nested: Any = [[[[[[[[[["x"]]]]]]]]]] * 100
    deep = encoded(call("ask_panel", {"question": "DEEP"})).replace(b'"DEEP"', b"[" * 100_000 + b"]" * 100_000)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x" * 100_000, "version": "1"}}
    bodies: list[Any] = [
        [ask("x")] * 1000, [], {}, 7, "x", None, [[[]]], {"jsonrpc": "1.0"}, message("x" * 1_000_000), message(MARK),
        call("nothing", {}), call("ask_panel", "x"), call("ask_panel", {"question": 7}), call("ask_panel", {"question": nested}),
        call("ask_panel", {f"a{number}": 1 for number in range(200_000)}), ask("x", model=MARK), ask("x", preset=MARK),
        call("compare", {"question": "x", "models": ["soprano"] * 1900}), call("compare", {"question": "x", "models": [TOOLS_ENSEMBLE]}),
        call("list_models", {"x": "y" * 2_000_000}), ask("<|" * 900_000), ask("word " * 300_000), message("initialize", hello),
        message("initialize", {"protocolVersion": 7}), message("tools/list", {"cursor": "x" * 500_000}), message("sampling/createMessage"),
        message("resources/read", {"uri": "file:///etc/passwd"}), message("prompts/get", {"name": MARK}), message("logging/setLevel", {"level": "debug"}),
        message("completion/complete", {"ref": nested}), message("ping", number=2**70), message("ping", number=[1]), message("ping", number=None),
        call("ask_panel", {"question": "x"}, _meta={"progressToken": "t" * 500_000}),
        {"jsonrpc": "2.0", "id": 5, "result": {}}, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    ]  # fmt: skip
    ready = [*[await asyncio.to_thread(encoded, body) for body in bodies], deep, deep[:-50_000], b"\xff" * 1000, b""]
    replies = await asyncio.gather(*(target.post("ann", MCP, body, 120) for body in ready for _ in range(2)))
    others = [await target.send(method, "ann", MCP) for method in ("GET", "DELETE", "PUT")]
    logs = [path.name for path in target.own_logs() if MARK in path.read_text(errors="replace")]
    return all_of(
        unlike(replies, 200, 202, 400, 404, 413),
        unlike(others, 404, 405),
        "passwd" in text_of(replies) and "root:" in text_of(replies) and "a file of the machine was read",
        logs and f"a message stands in {', '.join(sorted(logs))}",
    )


@case
async def calls_that_are_not_ones_own(target: Target) -> str:
    """A key calls over /mcp what it may call elsewhere, sees no other names, and ends no call of another."""
    hidden = [call("ask_panel", {"question": "x", "model": name}) for name in (MODEL, "asker", TOOLS_ENSEMBLE)]
    replies = [await target.post("bob", MCP, body) for body in hidden]
    listed = await target.post("bob", MCP, call("list_models", {}))
    slow = asyncio.create_task(
        target.post("root", MCP, call("compare", {"question": "Please tell me the room of Gonil."}, 1), 120)
    )
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1, "reason": MARK}}
    while not slow.done():
        await target.post("ann", MCP, cancel)
    limited = [await target.post("lim", MCP, ask("Please tell me the room of Gonil.")) for _ in range(14)]
    answered = sum(_has_answer(each) for each in limited)
    return all_of(
        any(map(_has_answer, replies)) and "it called what it may not",
        any(name in text_of([listed]) for name in ("asker", TOOLS_ENSEMBLE)) and "it sees names that are hidden",
        not _has_answer(slow.result()) and "the call of another did not end well",
        answered == len(limited) and f"all {answered} calls of a key with a limit were answered",
    )


def _has_answer(reply: Reply) -> bool:
    return reply.status == 200 and any(text in text_of([reply]) for text in ('isError\\":false', '"isError": false'))


@case
async def agents_that_leave(target: Target) -> str:
    """Many calls whose clients leave at once: their sequences come back, and another key is served meanwhile."""
    body = await asyncio.to_thread(
        encoded, call("compare", {"question": "Please tell me the room of Gonil.", "system": "x " * 200})
    )
    left = [asyncio.create_task(target.post("ann", MCP, body, 1.5)) for _ in range(LEAVING)]
    served = [await target.post("bob", MCP, ask("Please tell me the room of Gonil."), 90) for _ in range(2)]
    await asyncio.gather(*left)
    await asyncio.sleep(ALL_LEFT_S)
    running = await target.metric(r"cappella_runs_in_flight(?:\{[^}]*\})?")
    own = await target.post(
        "ann", CHAT, {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "n": 16}, 60
    )
    return all_of(
        not all(map(_has_answer, served)) and "the calls of another key were not answered",
        unlike([own], 200),
        running > 2 and f"{running:g} runs still run",
    )
