"""How much of each answer a judge can read, and which ensembles may exceed that: told before anything starts."""

from collections.abc import Iterator, Mapping

from cappella.config import Config, Ensemble
from cappella.vocabulary import STRATEGIES

LONG_ANSWER_TOKENS = 1024
"""What a member without a limit writes now and then."""
QUESTION_TOKENS = 1024
NOTES_TOKENS = 512
REPLY_SHARE = 0.25


def warnings(config: Config, contexts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Each ensemble whose judge may have to read answers in part, and why. `contexts` are those of models that are known."""
    for name, ensemble in config.ensembles.items():
        asked = ensemble.judge_of(ensemble)
        judge = config.host_of.get(asked.model, "") if asked else ""
        if judge not in contexts or not config.models_by_name[judge].capabilities.writes:
            continue
        share, longest = _share(ensemble, contexts[judge]), _longest(config, ensemble, contexts)
        if longest > share:
            does = "writes step by step" if ensemble.answers_exceed == "fold" else "reads the beginning and the end"
            answers = sum(seat.samples for seat in ensemble.seats)
            yield (
                name,
                (
                    f"with a question of {QUESTION_TOKENS:,} tokens the context of {ensemble.judge.model}"
                    f" ({contexts[judge]:,}) has room for {answers} answers of {share:,} each; of longer ones it {does}"
                ),
            )


def _share(ensemble: Ensemble, context: int) -> int:
    """The tokens of each answer beside a question, our notes, and the judge's own reply."""
    writes = STRATEGIES[ensemble.strategy].judge_writes
    analysis = ensemble.judge.analysis_max_tokens if ensemble.analysis == "before" else 0
    own = (ensemble.judge.max_completion_tokens or int(context * REPLY_SHARE)) + analysis if writes else 1
    room = context - min(own, context // 2) - NOTES_TOKENS - QUESTION_TOKENS
    return max(0, room) // sum(seat.samples for seat in ensemble.seats)


def _longest(config: Config, ensemble: Ensemble, contexts: Mapping[str, int]) -> int:
    return max(
        min(
            seat.sampling.max_completion_tokens or LONG_ANSWER_TOKENS,
            contexts.get(config.host_of.get(seat.model, ""), LONG_ANSWER_TOKENS),
        )
        for seat in ensemble.seats
    )
