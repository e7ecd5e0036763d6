"""The strategies that turn a panel's answers into one. Each is a file here and a line in this table."""

from collections.abc import Mapping

from cappella import vocabulary
from cappella.ensemble.context import Strategy
from cappella.ensemble.strategies.debate import debate
from cappella.ensemble.strategies.select import select
from cappella.ensemble.strategies.synthesize import synthesize
from cappella.ensemble.strategies.vote import vote

STRATEGIES: Mapping[vocabulary.Strategy, Strategy] = {
    "synthesize": synthesize,
    "select": select,
    "vote": vote,
    "debate": debate,
}
