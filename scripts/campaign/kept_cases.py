"""Attacks through kept responses: those of another key, and so many that they fill the disk."""

import asyncio
from typing import Any

from campaign.case import MARK, all_of, case, text_of, unlike
from campaign.setting import MAX_KEPT_BYTES
from campaign.target import Target, encoded

RESPONSES = "/v1/responses"
ENSEMBLE = "cappella/default"
LARGE_CHARS = 1_500_000
MANY = 60


def asked(text: str = "Please tell me the room of Gonil.", **more: Any) -> dict[str, Any]:
    return {"model": ENSEMBLE, "input": text, "max_output_tokens": 40, **more}


@case
async def responses_of_another(target: Target) -> str:
    """Nobody reads, continues, cites, cancels or deletes what is kept for another key, or learns that it is there."""
    kept = (await target.post("ann", RESPONSES, asked(MARK))).body
    running = (await target.post("ann", RESPONSES, asked(MARK, background=True, stream=True))).body
    name = kept["id"]
    later = running["id"] if isinstance(running, dict) else str(running).partition('"id":"')[2].partition('"')[0]
    replies, replies_400 = [], []
    for each in (name, later):
        ends = ("", "/input_items", "?stream=true&starting_after=0", "?include[]=message.output_text.logprobs")
        replies += [await target.get("bob", f"{RESPONSES}/{each}{end}") for end in ends]
        replies += [
            await target.post("bob", f"{RESPONSES}/{each}/cancel", {}),
            await target.send("DELETE", "bob", f"{RESPONSES}/{each}"),
        ]
        replies_400 += [await target.post("bob", RESPONSES, asked(previous_response_id=each))]
    items = [{"type": "item_reference", "id": item["id"]} for item in kept["output"]]
    replies_400 += [
        await target.post("bob", RESPONSES, {**asked(), "input": [*items, {"role": "user", "content": "x"}]})
    ]
    invented = await target.get("bob", f"{RESPONSES}/resp_{'0' * 32}")
    own = await target.get("ann", f"{RESPONSES}/{name}")
    told = text_of([*replies, *replies_400])
    return all_of(
        unlike(replies, 404),
        unlike(replies_400, 400, 404),
        unlike([own], 200),
        MARK in told and "another key reads the text",
        {reply.code for reply in replies} != {invented.code} and "it is told that they are there",
        any(MARK in log.read_text(errors="replace") for log in target.own_logs()) and "a log has the text",
    )


@case
async def many_kept_responses(target: Target) -> str:
    """Large ones that fit no context: few at a time, and what is kept of one key has a limit, and takes nothing of another's."""
    other = (await target.post("bob", RESPONSES, asked())).body["id"]
    before = target.rss_mib()
    body = await asyncio.to_thread(encoded, asked("word " * (LARGE_CHARS // 5), background=True))
    small = await asyncio.to_thread(encoded, asked(background=True))
    at_once = await asyncio.gather(*(target.post("ann", RESPONSES, small, 120) for _ in range(60)))
    replies = []
    for _ in range(MANY):
        replies += [await target.post("ann", RESPONSES, body, 120)]
    last = (await target.post("ann", RESPONSES, asked())).body.get("id")
    grown, size = target.rss_mib() - before, sum(path.stat().st_size for path in target.folder.glob("runs.sqlite*"))
    left = [await target.get("bob", f"{RESPONSES}/{other}"), await target.get("ann", f"{RESPONSES}/{last}")]
    return all_of(
        unlike(at_once, 200, 429),
        unlike(replies, 200, 400, 429),
        unlike(left, 200),
        grown > 150 and f"the gateway grew by {grown:.0f} MiB",
        size > 2 * MAX_KEPT_BYTES and f"{size >> 20} MiB are kept, and {MAX_KEPT_BYTES >> 20} MiB of one key may be",
    )
