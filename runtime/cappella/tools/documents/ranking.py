"""Joins rankings of passages into one."""

from collections.abc import Sequence

RANK_CONSTANT = 60


def fused(*rankings: Sequence[int]) -> list[int]:
    """By reciprocal rank fusion: each ranking gives its k-th passage 1 / (60 + k).

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, start=1):
            scores[passage] = scores.get(passage, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores, key=lambda passage: -scores[passage])
