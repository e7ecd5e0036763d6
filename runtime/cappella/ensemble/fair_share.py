"""A fair share of a room for texts of several sizes: what short ones leave goes to the long ones."""

from collections.abc import Sequence


def fair_share(sizes: Sequence[int], room: int) -> int:
    """The most that each may have, so that all fit."""
    left, limit = room, 0
    for place, size in enumerate(sorted(sizes)):
        limit = left // (len(sizes) - place)
        if size > limit:
            return max(limit, 0)
        left -= size
    return max(sizes, default=limit)
