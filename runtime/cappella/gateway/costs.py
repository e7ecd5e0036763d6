"""The sequences that a run needs on each engine, by which it is admitted."""

from collections import Counter
from collections.abc import Mapping

from cappella.config.options import Settings
from cappella.ensemble.together import AT_ONCE
from cappella.gateway.admission import Costs
from cappella.vocabulary import STRATEGIES


def costs(settings: Settings, host_of: Mapping[str, str], judge_writes: bool = True) -> Costs:
    """The sequences that one run needs on each engine; `host_of` maps models to engines. A judge may only score."""
    out: Counter[str] = Counter()
    for seat in settings.called_seats:
        out[host_of[seat.model]] += seat.samples
    answers = len(settings.answer_names)
    if settings.may_ask_judge:
        out[host_of[settings.judge]] += _of_judge(settings) if judge_writes else min(AT_ONCE, answers)
    if settings.reward:
        out[host_of[settings.reward]] += min(AT_ONCE, answers)
    if settings.embedder:
        # One call with all texts.
        out[host_of[settings.embedder]] += answers
    if settings.gate:
        # It is asked before the others.
        out.setdefault(host_of[settings.gate.model], 1)
    return dict(out)


def _of_judge(settings: Settings) -> int:
    """Its calls at a time: with `debias` the orders in which it chooses, else an analysis beside the answer."""
    if not STRATEGIES[settings.strategy].judge_writes:
        return min(AT_ONCE, len(settings.answer_names)) if settings.debias else 1
    return 2 if settings.analysis == "alongside" else 1
