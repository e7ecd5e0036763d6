"""How answers become one. A strategy is one function in one file, and a line in this table."""

from collections.abc import Awaitable, Callable, Mapping

from cappella.ensemble.judge import Judge
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.select import select
from cappella.ensemble.strategies.synthesize import synthesize
from cappella.ensemble.strategies.vote import vote
from cappella.vocabulary import Strategy

STRATEGIES: Mapping[Strategy, Callable[[Judge], Awaitable[Verdict]]] = {
    "synthesize": synthesize,
    "select": select,
    "vote": vote,
}
