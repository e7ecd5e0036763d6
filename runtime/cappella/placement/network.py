"""What a run sends over the network where no engine is on the gateway's machine: prompts to the engines, and tokens back.

A token comes as a server-sent event of its own. Of a prompt each token is a few bytes of text.
"""

from collections.abc import Mapping

from cappella.config import Config
from cappella.placement.estimate import ANSWER_TOKENS, PROMPT_TOKENS

BYTES_PER_TOKEN = 4.5
"""Of text inside JSON."""
BYTES_PER_EVENT = 250
"""Of vLLM's stream, for one token with the frame of HTTP around it."""


def bytes_per_run(config: Config) -> Mapping[str, int]:
    """For each ensemble, the bytes of a typical run, both ways together; fewer where engines are on the gateway's machine."""
    sent: dict[str, int] = {}
    for name, ensemble in config.ensembles.items():
        answers = sum(seat.samples for seat in ensemble.seats)
        read, written = len(ensemble.seats) * PROMPT_TOKENS, answers * ANSWER_TOKENS
        read, written = read * ensemble.layers, written * ensemble.layers
        if ensemble.planned_judge_of(ensemble):
            read += PROMPT_TOKENS + answers * ANSWER_TOKENS
            written += ANSWER_TOKENS
        sent[name] = int(read * BYTES_PER_TOKEN + written * BYTES_PER_EVENT)
    return sent


def told(config: Config) -> Mapping[str, str]:
    """The same in words."""
    return {
        name: f"about {size / 1e6:.1f} MB over the network for a run, if no engine is on the gateway's machine"
        for name, size in bytes_per_run(config).items()
    }
