"""One round of the panel: builds the prompt of each seat and asks them all.

From the second round on, a seat's prompt also shows the answers of the round before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cappella.config.options import Seat, Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.events import Emit
from cappella.ensemble.grace import WaitPolicy
from cappella.ensemble.lookup_budget import LookupBudget
from cappella.ensemble.messages import for_member
from cappella.ensemble.panel import SeatRequest, collect_answers
from cappella.ensemble.run import Answer, Panel
from cappella.ensemble.seat_tools import Tools
from cappella.ensemble.shares import Reply, fit
from cappella.ensemble.tool_run import ToolRun
from cappella.types import Message, Prompt

LOOKUPS_SCALE = 0.5
"""The share of a context's room that answers may have where a seat reads results of tools beside them."""


async def ask_round(
    engines: Mapping[str, Engine],
    prompt: Prompt,
    settings: Settings,
    seats: Sequence[Seat],
    previous: Sequence[Answer],
    wait_policy: WaitPolicy,
    emit: Emit,
    verbatim: bool,
    tools: ToolRun,
    budget: LookupBudget | None = None,
) -> Panel:
    """One round over the seats, which see the `previous` answers if there are any. For `verbatim` see `for_member`.

    Lookups stay within the `budget`.
    """
    shown = Candidates.shuffled(previous, settings.seed) if previous else None
    requests = []
    for seat in seats:
        engine = engines[seat.model]
        seat_prompt = for_member(prompt, seat, engine.capabilities, settings, verbatim)
        box = tools.toolbox(seat.tools)
        if shown:
            messages = await _with_previous(seat_prompt, shown, settings, engine, seat)
            seat_prompt = replace(seat_prompt, messages=messages)
        nonce = shown.nonce if shown else tools.nonce if box.tools else None
        used = Tools(box, tools, nonce) if nonce and box.tools else None
        requests.append(SeatRequest(seat, engine, seat_prompt, nonce, used, budget))
    return await collect_answers(requests, wait_policy, emit)


async def _with_previous(
    prompt: Prompt, shown: Candidates, settings: Settings, engine: Engine, seat: Seat
) -> Sequence[Message]:
    """The messages, then the answers of the round before, fenced, as in the judge's prompt."""
    prompt = replace(prompt, messages=prompts.with_texts_broken_up(prompt.messages))
    reply = Reply(seat.sampling.max_completion_tokens)
    scale = LOOKUPS_SCALE if seat.tools.servers else 1.0
    candidates = (await fit(shown, prompt, engine, reply, settings.criteria, scale=scale)).candidates
    return prompts.final_messages(
        prompt.messages, candidates.texts, candidates.nonce, criteria=settings.criteria, tools=bool(prompt.tools)
    )
