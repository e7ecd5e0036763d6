"""One-word choices of a model: each choice's probability, from the log-probabilities."""

from collections.abc import Mapping, Sequence
from math import exp

from cappella.errors import EngineUnusable
from cappella.types import Json

CHOICE_TOKENS = 16
"""Enough for any letter or word to choose, in any tokenizer."""


def probabilities(logprobs: Sequence[Json], choices: Sequence[str]) -> Mapping[str, float]:
    """The probability of each choice, 1 in all. Raises EngineUnusable if no token is one of the choices.

    Reads the tokens from the end, since a model that reasons first may write a choice's letter on the way.
    """
    for token in reversed(logprobs):
        if str(token["token"]).strip() in choices:
            alternatives = token.get("top_logprobs") or [token]
            weights = dict.fromkeys(choices, 0.0)
            for alternative in alternatives:
                if (choice := str(alternative["token"]).strip()) in weights:
                    weights[choice] += exp(alternative["logprob"])
            total = sum(weights.values())
            if total > 0:
                return {choice: weight / total for choice, weight in weights.items()}
    raise EngineUnusable("the judge chose none of the answers", "judge_schema_mismatch")


def mean(per_call: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Each name's mean probability over several calls; over both orders of the answers it cancels position bias."""
    return {name: sum(each[name] for each in per_call) / len(per_call) for name in per_call[0]}
