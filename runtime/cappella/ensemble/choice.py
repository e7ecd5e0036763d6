"""One-word choices of a model: the sampling for them, and each choice's probability from the log-probabilities."""

from collections.abc import Mapping, Sequence
from math import exp

from cappella.errors import EngineUnusable
from cappella.types import Capabilities, Json, Sampling

CHOICE_TOKENS = 16
"""Enough for any letter or word to choose, in any tokenizer."""
SHORT_THINKING_TOKENS = 1024
"""What a model may think before a word, unless its `thinking_token_budget` says so."""


def short_sampling(sampling: Sampling, capabilities: Capabilities, tokens: int) -> Sampling:
    """The sampling with at most `tokens` new tokens and no stop texts; for a model that reasons first they limit its answer alone."""
    if not capabilities.reasoning:
        return sampling.model_copy(update={"stop": None, "max_completion_tokens": tokens})
    budget = with_thinking_budget(sampling, SHORT_THINKING_TOKENS, capabilities)
    return budget.model_copy(update={"stop": None, "max_completion_tokens": None})


def with_thinking_budget(sampling: Sampling, tokens: int, capabilities: Capabilities) -> Sampling:
    """The sampling with so much thinking at most, unless it says how much itself, or the server cannot limit it."""
    if not capabilities.extensions or sampling.thinking_token_budget is not None:
        return sampling
    return sampling.model_copy(update={"thinking_token_budget": tokens})


def limited(sampling: Sampling, tokens: int) -> Sampling:
    """The sampling with at most so many new tokens; where that is less than before, thinking takes at most half of them."""
    if sampling.max_completion_tokens is not None and sampling.max_completion_tokens <= tokens:
        return sampling
    update = {"max_completion_tokens": tokens}
    if sampling.thinking_token_budget is not None:
        update["thinking_token_budget"] = min(sampling.thinking_token_budget, tokens // 2)
    return sampling.model_copy(update=update)


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
