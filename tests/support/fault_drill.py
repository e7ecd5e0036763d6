"""Fault drill: twenty concurrent clients against a real deployment while something breaks."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Json = dict[str, Any]

AT_ONCE = 20
DEADLINE_S = 30.0
TYPED = frozenset(
    "insufficient_quorum deadline_exceeded judge_failed engine_error model_not_ready overloaded shutting_down context_length_exceeded".split()
)
QUESTION = "Please tell me the room of Gonil, the price of Tunagox and the lead of Tatim."


@dataclass
class Tally:
    """Counts of requests by outcome; `bad` are outcomes that must not occur. `slowest_s` is reported, not asserted."""

    ends: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def figures(self) -> Json:
        requests = sum(self.ends.values()) + len(self.bad)
        return {"requests": requests, "ends": dict(self.ends), "bad": self.bad, "slowest_s": self.slowest_s}


async def run_drill(
    url: str, requests: int, harm: Callable[[], Awaitable[object]], direct: str | None = "alto"
) -> Tally:
    """Send requests to ensembles (streamed or not) and to one model; `harm` is done after a tenth of them."""
    tally, numbers = Tally(), iter(range(requests))
    harmed = asyncio.Event()

    async def client(http: aiohttp.ClientSession) -> None:
        for number in numbers:
            if sum(tally.ends.values()) >= requests // 10 and not harmed.is_set():
                harmed.set()
                await harm()
            await _one(http, url, number, direct, tally)

    timeout = aiohttp.ClientTimeout(total=4 * DEADLINE_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(client(http) for _ in range(AT_ONCE)))
    assert harmed.is_set()
    return tally


async def _one(http: aiohttp.ClientSession, url: str, number: int, direct: str | None, tally: Tally) -> None:
    body: Json = {"model": "cappella/default", "messages": [{"role": "user", "content": QUESTION}]}
    body |= {"stream": True} if number % 2 else {}
    body |= {"model": direct, "max_completion_tokens": 40} if direct and number % 10 == 9 else {}
    began = time.monotonic()
    try:
        async with http.post(f"{url}/v1/chat/completions", json=body) as reply:
            end = _end(reply.status, await reply.text(), bool(body.get("stream")))
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
        end = f"BAD {error!r}"
    tally.slowest_s = max(tally.slowest_s, round(time.monotonic() - began, 2))
    if end.startswith("BAD"):
        tally.bad.append(end)
    else:
        tally.ends[end] += 1


def _end(status: int, text: str, stream: bool) -> str:
    """The outcome of a request in a word or two."""
    events = _events(text) if stream and status == 200 else [json.loads(text)]
    last = events[-1]
    if "error" in last:
        code = last["error"]["code"]
        if stream and code == 500:
            return "the engine's own error in its stream"
        return f"error {code}" if code in TYPED else f"BAD error {last['error']}"
    content = "".join(
        (choice.get("delta") or choice.get("message"))["content"] or ""
        for event in events
        for choice in event.get("choices", ())
        if "content" in (choice.get("delta") or choice.get("message") or {})
    )
    if status != 200 or not content.strip():
        return f"BAD {status} {text[-300:]}"
    fusion = last.get("fusion")
    if fusion is None:
        return "one model"
    # A straggler is no failure: enough others were done.
    failed = [each for each in fusion["failed_models"] if each["reason"] != "straggler"]
    blamed = bool(failed or fusion.get("failure_reason"))
    if blamed != (fusion["status"] in ("degraded", "single")):
        return f"BAD label {fusion}"
    return str(fusion["status"])


def _events(text: str) -> list[Json]:
    """Raises ValueError for a stream without its end mark."""
    if not text.endswith("data: [DONE]\n\n"):
        raise ValueError(f"the stream has no end: {text[-300:]!r}")
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
