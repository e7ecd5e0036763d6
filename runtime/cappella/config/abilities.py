"""What a run asks of a model's server, and whether that server has it: said before anything is sent."""

from typing import Protocol

from cappella.types import Capabilities, Sampling
from cappella.vocabulary import AnalysisMode, EarlyExit, GateMode, Strategy

EXTENDED_SAMPLING = ("top_k", "min_p", "repetition_penalty")
"""Of vLLM's API, and not of OpenAI's."""
JUDGE_CHOOSES: tuple[Strategy, ...] = ("select", "vote")
"""The strategies whose judge picks an answer; that of all others writes one."""


class Judging(Protocol):
    """The options that decide which calls a judge gets."""

    @property
    def strategy(self) -> Strategy: ...
    @property
    def analysis(self) -> AnalysisMode: ...
    @property
    def early_exit(self) -> EarlyExit: ...


def judge_lacks(capabilities: Capabilities, judging: Judging, gate: GateMode | None = None) -> tuple[str, str] | None:
    """What a judge is needed for that its server cannot do, and what to do about it; None if it can do all."""
    chooses = "its server does not hold answers to given words (structured_outputs) and report logprobs"
    if judging.strategy in JUDGE_CHOOSES and not (capabilities.extensions and capabilities.logprobs):
        return f"a judge of strategy {judging.strategy} chooses, and {chooses}", "Use strategy: synthesize"
    if (judging.early_exit == "judge" or gate == "judge") and not capabilities.extensions:
        what = "gate" if gate == "judge" else "early_exit"
        return f"{what}: judge asks for one word, and {chooses}", f"Take {what}: judge out"
    writes = judging.strategy not in JUDGE_CHOOSES
    if writes and judging.analysis != "off" and not capabilities.json_schema:
        problem = "its analysis is JSON, and its server is not said to hold answers to a json_schema"
        return problem, "Set analysis: off, or json_schema: true on the model if its server does"
    return None


def seat_lacks(capabilities: Capabilities, sampling: Sampling, samples: int = 1) -> tuple[str, str] | None:
    """The same for a call that samples so."""
    if capabilities.extensions:
        return None
    given = [name for name in EXTENDED_SAMPLING if getattr(sampling, name) is not None]
    if given:
        return f"its server speaks OpenAI's API, which has no {given[0]}", f"Take {given[0]} out"
    if samples > 1:
        return "its server gives one answer to a request", "Seat the model several times instead of samples"
    return None
