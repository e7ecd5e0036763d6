"""What the attacks have in common: their table, and how replies are judged."""

from collections.abc import Awaitable, Callable, Sequence

from campaign.target import Reply, Target

Case = Callable[[Target], Awaitable[str]]
"""Attacks, and returns what was wrong; empty if everything was right."""
CASES: dict[str, Case] = {}
MARK = "MARKED-TEXT-OF-ANN"
CHAT, MODEL = "/v1/chat/completions", "soprano"


def case(attack: Case) -> Case:
    CASES[attack.__name__] = attack
    return attack


def unlike(replies: Sequence[Reply], *statuses: int) -> str:
    """What the replies with other statuses were."""
    wrong = [f"{reply.status} {reply.code}".strip() for reply in replies if reply.status not in statuses]
    return f"{len(wrong)} of {len(replies)} replies were {sorted(set(wrong))}" if wrong else ""
