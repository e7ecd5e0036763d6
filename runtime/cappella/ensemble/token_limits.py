"""How many tokens a call may think and write, as its sampling says it."""

from cappella.config.options import Settings
from cappella.types import Capabilities, Sampling

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


def analysis_sampling(settings: Settings, capabilities: Capabilities) -> Sampling:
    """The sampling for the judge's analysis, which has all of its limit also where thinking comes before it."""
    limit, sampling, thinking = settings.analysis_max_tokens, settings.judge_sampling, 0
    if capabilities.reasoning:
        sampling = with_thinking_budget(sampling, limit, capabilities)
        thinking = sampling.thinking_token_budget or limit
    return sampling.model_copy(update={"max_completion_tokens": limit + thinking, "stop": None})


def within_quarter(sampling: Sampling, max_total_tokens: int | None) -> Sampling:
    """At most a quarter of a run's tokens: analysis and answer share the half that the panel leaves."""
    return sampling if max_total_tokens is None else limited(sampling, max_total_tokens // 4)
