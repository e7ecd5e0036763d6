"""How much of an answer's tokens a model that reasons first may think, so that some are left for the answer itself; or none at all."""

from dataclasses import replace

from cappella.errors import EngineError, EngineRejected
from cappella.types import Capabilities, Prompt, Sampling

FIELD = "thinking_token_budget"
ANSWER_TOKENS = 1024
"""So many are left for the answer, half of a smaller limit."""


def with_room_to_answer(sampling: Sampling, capabilities: Capabilities) -> Sampling:
    """The sampling with a budget for thinking where its limit holds for thoughts and answer together.

    Without one for a model that does not reason, or whose server knows no budget.
    """
    limit, budget = sampling.max_completion_tokens, sampling.thinking_token_budget
    if not (capabilities.reasoning and capabilities.extensions):
        return sampling if budget is None else without_budget(sampling)
    if budget is not None or limit is None or limit < 2:
        return sampling
    return sampling.model_copy(update={FIELD: limit - min(limit // 2, ANSWER_TOKENS)})


def without_budget(sampling: Sampling) -> Sampling:
    return sampling.model_copy(update={FIELD: None})


def turned_off(prompt: Prompt, sampling: Sampling, capabilities: Capabilities) -> tuple[Prompt, Sampling]:
    """The same question without thinking, by all means of the server: a template takes no notice of a word that it does not read."""
    if not capabilities.extensions:
        return replace(prompt, reasoning_effort="none"), sampling
    words = {**prompt.template_words, "enable_thinking": False}
    return replace(prompt, template_words=words), sampling.model_copy(update={FIELD: 0})


def is_refused(refusal: EngineError, sampling: Sampling) -> bool:
    """Whether the server takes no budget: it finds no end of thinking among the tokens of this model."""
    has_budget = sampling.thinking_token_budget is not None
    return has_budget and isinstance(refusal, EngineRejected) and FIELD in str(refusal)
