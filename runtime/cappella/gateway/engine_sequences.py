"""The sequences of one engine: how many requests hold, and how many direct calls and runs may have."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

DIRECT_SHARE = 0.125
"""The share of each engine's sequences that is reserved for direct calls of a model."""
RUN_SHARE = 0.25
"""The share that is reserved for runs, if the model is in any ensemble: a run needs a sequence on several engines."""


@dataclass(slots=True, eq=False)
class EngineSequences:
    """Those of one engine, which a reload may keep. It can run `configured` at once, or what `max_calls` tells now.

    `has_runs` says whether runs use it.
    """

    configured: int
    max_calls: Callable[[], int] | None = None
    has_runs: bool = True
    used_by_calls: int = 0
    used_by_runs: int = 0
    held: Counter[str | None] = field(default_factory=Counter)
    """The used sequences by key."""

    @property
    def sequences(self) -> int:
        """The number that it can run at once now."""
        return self.max_calls() if self.max_calls else self.configured

    @property
    def used(self) -> int:
        return self.used_by_calls + self.used_by_runs

    def full_capacity(self, direct: bool) -> int:
        """The number of sequences that direct calls, or else runs, may use while all its servers are well."""
        return self._share(self.configured, direct)

    def fits(self, count: int, direct: bool) -> bool:
        """Whether there is room now. A request that is larger than what is left of the engine takes all of that."""
        used, sequences = self.used_by_calls if direct else self.used_by_runs, self.sequences
        capacity = self._share(sequences, direct)
        count = min(count, capacity)
        return used + count <= capacity and self.used + count <= sequences

    def take(self, count: int, direct: bool, key: str | None) -> None:
        """Use `count` sequences; give them back if it is negative."""
        self.used_by_calls += count if direct else 0
        self.used_by_runs += 0 if direct else count
        self.held[key] += count
        if not self.held[key]:
            del self.held[key]

    def _share(self, sequences: int, direct: bool) -> int:
        reserved = RUN_SHARE * self.has_runs if direct else DIRECT_SHARE
        return max(1, sequences - round(sequences * reserved))
