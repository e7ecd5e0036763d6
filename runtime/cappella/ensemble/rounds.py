"""One round of the panel: builds the prompt of each seat and asks them all.

From the second round on, a seat's prompt also shows the answers of the round before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.events import Emit
from cappella.ensemble.messages import for_member
from cappella.ensemble.panel import SeatRequest, WaitPolicy, collect_answers
from cappella.ensemble.run import Answer, Panel
from cappella.types import Message, Prompt


async def ask_round(
    engines: Mapping[str, Engine],
    prompt: Prompt,
    settings: Settings,
    previous: Sequence[Answer],
    wait_policy: WaitPolicy,
    emit: Emit,
    verbatim: bool,
) -> Panel:
    """One round over all seats, which see the `previous` answers if there are any. For `verbatim` see `for_member`."""
    requests = []
    for seat in settings.panel:
        engine = engines[seat.model]
        seat_prompt = for_member(prompt, seat, engine.capabilities, settings, verbatim)
        if previous:
            messages = _with_previous(seat_prompt.messages, previous, settings, bool(prompt.tools))
            seat_prompt = replace(seat_prompt, messages=messages)
        requests.append(SeatRequest(seat, engine, seat_prompt))
    return await collect_answers(requests, wait_policy, emit)


def _with_previous(
    messages: Sequence[Message], previous: Sequence[Answer], settings: Settings, tools: bool
) -> Sequence[Message]:
    """The messages, then the previous answers shuffled and fenced, as in the judge's prompt."""
    candidates = Candidates.shuffled(previous, settings.seed)
    return prompts.final_messages(messages, candidates.texts, candidates.nonce, criteria=settings.criteria, tools=tools)
