"""The shares of a run's `max_total_tokens`: the panel's, each member's, and those of its lookups."""

from collections.abc import Mapping

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble.budget import Budget, within_budget
from cappella.ensemble.lookup_budget import LookupBudget


class TokenShares:
    """`engines` may use all tokens that are left of the run; `members`, the same engines, only a member's share in each answer."""

    def __init__(self, engines: Mapping[str, Engine], settings: Settings, max_rounds: int) -> None:
        self._total = settings.max_total_tokens
        self._max_rounds = max_rounds
        self._budget = Budget(self._total) if self._total else None
        # The panel gets at most half of a budget, since the judge reads all that the panel writes.
        self._member = self._total and self._total // (2 * max_rounds * len(settings.answer_names))
        self.engines = within_budget(engines, self._budget)
        self.members = within_budget(engines, self._budget, self._member)

    @property
    def are_limited(self) -> bool:
        return self._budget is not None

    @property
    def remaining_tokens(self) -> int | None:
        """The tokens that are left of the run; None without a limit."""
        return self._budget.remaining_tokens if self._budget else None

    def of_lookups(self, rounds_done: int) -> LookupBudget | None:
        """What the lookups of the next round may spend: of the panel's half of all tokens, what is not for later rounds."""
        budget, total = self._budget, self._total
        if budget is None or not total or not self._member:
            return None
        spent_by_then = total // 2 * (rounds_done + 1) // self._max_rounds
        return LookupBudget(lambda: budget.remaining_tokens, total - spent_by_then, self._member)
