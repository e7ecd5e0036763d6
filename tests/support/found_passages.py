"""Passages that a run finds before its strategy begins, as the tools of its members would."""

import pytest

from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies import STRATEGIES
from cappella.tools.base import Passage

RATES = Passage("handbook", "travel/rates.md", "page 2", "The daily allowance is 28 EUR.", "Rates 2024")
FAQ = Passage("handbook", "hr/faq.md", "lines 3-4", "The daily allowance is 24 EUR.")
LONG = Passage("handbook", "long.md", "page 1", "word " * 1000)


def find(monkeypatch: pytest.MonkeyPatch, *passages: Passage) -> None:
    """Let every run of this process find these passages: ann finds them all, bob the first."""
    for name, strategy in list(STRATEGIES.items()):
        monkeypatch.setitem(STRATEGIES, name, _finding(strategy, passages))


def _finding(strategy: Strategy, passages: tuple[Passage, ...]) -> Strategy:
    async def conclude(ctx: RunContext) -> Verdict:
        ctx.sources.add(passages, "ann")
        ctx.sources.add(passages[:1], "bob")
        return await strategy.conclude(ctx)

    return Strategy(conclude, strategy.returns_member_answers, strategy.min_rounds)
