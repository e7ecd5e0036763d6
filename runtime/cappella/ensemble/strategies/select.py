"""The judge picks one answer, which is returned as it is."""

from cappella.ensemble.judge import Judge
from cappella.ensemble.run import Verdict


async def select(judge: Judge) -> Verdict:
    """One constrained token, and the probability of each answer. Raises EngineError if the judge does not choose."""
    if len(judge.answers) == 1:
        return Verdict(judge.hand_on(judge.answers[0]), judge.answers[0].name)
    answer, probabilities = await judge.choose(judge.answers)
    return Verdict(judge.hand_on(answer), answer.name, probabilities)
