"""What an ensemble takes as a whole: how long a conversation, and which kinds of input."""

from collections.abc import Mapping
from typing import Literal

from cappella.config import AnyModel, Ensemble
from cappella.config.abilities import may_ask_judge
from cappella.ensemble.shares import NOTES_TOKENS
from cappella.vocabulary import STRATEGIES

ANSWERS_SHARE = 0.25
"""The share of the judge's context that is counted for the answers, unless their own limits say less."""
LEAST_SHARE = 0.25
"""The share of the judge's context that is left for the conversation at least: answers are cut to what there is."""

Modality = Literal["text", "image"]


def context_length(ensemble: Ensemble, models: Mapping[str, AnyModel]) -> int:
    """The tokens of the longest conversation, its reply included, that the ensemble's quorum and its judge can take.

    It is the smaller of two figures. The quorum's: of the contexts of all answers, longest first, the one that completes
    the quorum. The judge's: its context, less 512 tokens for our notes, less `analysis_max_tokens` where it reads an
    analysis before it writes, and less the answers: the sum of the seats' `max_completion_tokens` if all have one, and
    a quarter of its context at most. At least a quarter of the judge's context always counts. A judge that scores reads one
    answer at a time: of its context, the longest answer is left out. A judge that no run asks counts for nothing.
    """
    contexts = sorted(models[seat.model].context_tokens for seat in ensemble.seats for _ in range(seat.samples))
    quorum = ensemble.quorum_of(len(contexts))
    judge = models[ensemble.judge.model]
    if not may_ask_judge(ensemble, ensemble.gate.mode if ensemble.gate else None):
        return contexts[-quorum]
    read = _judge_context if judge.capabilities.writes else _scorer_context
    return min(contexts[-quorum], read(ensemble, judge.context_tokens))


def _judge_context(ensemble: Ensemble, context: int) -> int:
    limits = [seat.sampling.max_completion_tokens for seat in ensemble.seats for _ in range(seat.samples)]
    answers = min(int(context * ANSWERS_SHARE), sum(limit or context for limit in limits))
    reads_analysis = STRATEGIES[ensemble.strategy].judge_writes and ensemble.analysis == "before"
    analysis = ensemble.judge.analysis_max_tokens if reads_analysis else 0
    return max(int(context * LEAST_SHARE), context - NOTES_TOKENS - analysis - answers)


def _scorer_context(ensemble: Ensemble, context: int) -> int:
    """It reads one answer at a time, and no notes of ours."""
    longest = max(seat.sampling.max_completion_tokens or context for seat in ensemble.seats)
    return context - min(int(context * ANSWERS_SHARE), longest)


def input_modalities(ensemble: Ensemble, models: Mapping[str, AnyModel]) -> list[Modality]:
    """Images are an input if the members that take them are enough for the quorum."""
    answers = sum(seat.samples for seat in ensemble.seats)
    seeing = sum(seat.samples for seat in ensemble.seats if models[seat.model].capabilities.images)
    return ["text", "image"] if seeing >= ensemble.quorum_of(answers) else ["text"]
