"""Choices of a few constrained tokens: how they are drawn, and a probability for each from their log-probabilities."""

from collections.abc import Mapping, Sequence
from math import exp

from cappella.errors import EngineUnusable
from cappella.types import Capabilities, Json, Sampling

# Room for any letter or word that is chosen, in any tokenizer.
CHOICE_TOKENS = 16


def brief(sampling: Sampling, capabilities: Capabilities, tokens: int) -> Sampling:
    """For a reply that its form keeps short; a model that thinks first needs room for that."""
    limit = None if capabilities.reasoning else tokens
    return sampling.model_copy(update={"stop": None, "max_completion_tokens": limit})


def probabilities(logprobs: Sequence[Json], choices: Sequence[str]) -> Mapping[str, float]:
    """The share of each choice, 1 in all. A model that thinks first speaks its choice last. Raises EngineUnusable."""
    for token in reversed(logprobs):
        if str(token["token"]).strip() in choices:
            alternatives = token.get("top_logprobs") or [token]
            weights = dict.fromkeys(choices, 0.0)
            for each in alternatives:
                if (choice := str(each["token"]).strip()) in weights:
                    weights[choice] += exp(each["logprob"])
            total = sum(weights.values())
            if total > 0:
                return {choice: weight / total for choice, weight in weights.items()}
    raise EngineUnusable("the judge chose none of the answers", "judge_schema_mismatch")


def mean(shares: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The mean over several askings, which is where the bias of an order goes."""
    return {name: sum(each[name] for each in shares) / len(shares) for name in shares[0]}
