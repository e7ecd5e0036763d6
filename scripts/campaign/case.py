"""What the attacks have in common: their table, how replies are judged, and how batches are followed."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from campaign.target import Reply, Target

Case = Callable[[Target], Awaitable[str]]
"""Attacks, and returns what was wrong; empty if everything was right."""
CASES: dict[str, Case] = {}
_MODELS: dict[str, Sequence[str]] = {}
MARK = "MARKED-TEXT-OF-ANN"
CHAT, MODEL, BATCHES = "/v1/chat/completions", "soprano", "/v1/batches"
USER = {"role": "user", "content": "x"}
_ENDED = ("completed", "failed", "cancelled", "expired")


def case(attack: Case) -> Case:
    CASES[attack.__name__] = attack
    return attack


def case_with(*models: str) -> Callable[[Case], Case]:
    """A case that needs these models beside the demo's."""

    def added(attack: Case) -> Case:
        _MODELS[attack.__name__] = models
        return case(attack)

    return added


def models_of(names: Iterable[str]) -> Collection[str]:
    """The models that these cases need beside the demo's."""
    return {model for name in names for model in _MODELS.get(name, ())}


def unlike(replies: Sequence[Reply], *statuses: int) -> str:
    """What the replies with other statuses were."""
    wrong = [f"{reply.status} {reply.code}".strip() for reply in replies if reply.status not in statuses]
    return f"{len(wrong)} of {len(replies)} replies were {sorted(set(wrong))}" if wrong else ""


def all_of(*wrongs: str | bool) -> str:
    """What of it was wrong."""
    return "; ".join(wrong for wrong in wrongs if isinstance(wrong, str) and wrong)


def text_of(replies: Iterable[Reply]) -> str:
    return "\n".join(json.dumps(reply.body) for reply in replies)


async def ended(target: Target, batch: str) -> Any:
    """A batch of ann's once it is over, or after two minutes."""
    reply = await target.get("ann", f"{BATCHES}/{batch}")
    for _ in range(240):
        if reply.body.get("status") in _ENDED:
            break
        await asyncio.sleep(0.5)
        reply = await target.get("ann", f"{BATCHES}/{batch}")
    return reply.body
