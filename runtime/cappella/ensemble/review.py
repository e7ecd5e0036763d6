"""The members rank the answers, anonymous and shuffled; what a member says of its own answers does not count."""

import asyncio
from collections.abc import Sequence

from cappella.config.options import Seat
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import brief
from cappella.ensemble.context import RunContext
from cappella.ensemble.events import Reviewed
from cappella.ensemble.messages import for_judge
from cappella.ensemble.run import Answer
from cappella.ensemble.structured.json_value import value_of
from cappella.errors import EngineError
from cappella.types import Form, Prompt


async def rank_answers(ctx: RunContext) -> None:
    """Set the run's `ranking`, if its settings want one and anybody gave one."""
    if not ctx.settings.review:
        return
    panel = ctx.settings.panel
    voices = [EngineCall("review", seat.name) for seat in panel]
    timeout_s = min(ctx.settings.round_timeout_s, ctx.panel_left_s)
    ballots = await asyncio.gather(
        *(
            _ballot(ctx, seat, voice, ctx.settings.seed + number, timeout_s)
            for number, (seat, voice) in enumerate(zip(panel, voices, strict=True))
        )
    )
    ctx.review_calls += [voice.call for voice in voices if voice.spoke]
    ctx.ranking = _borda(ctx.answers, ballots)
    if ctx.ranking is not None:
        ctx.emit(Reviewed(ctx.ranking))


def _borda(answers: Sequence[Answer], ballots: Sequence[Sequence[str]]) -> list[str] | None:
    """The names of the answers, best first by the mean of the members' places; None if nobody ranked them."""
    places: dict[str, list[float]] = {answer.name: [] for answer in answers}
    for ballot in ballots:
        for place, name in enumerate(ballot):
            places[name].append(place / max(1, len(ballot) - 1))
    if not any(places.values()):
        return None
    # An answer that nobody but its own member ranked stands in the middle.
    return sorted(places, key=lambda name: sum(places[name]) / len(places[name]) if places[name] else 0.5)


async def _ballot(ctx: RunContext, seat: Seat, voice: EngineCall, seed: int, timeout_s: float) -> list[str]:
    """One member's order of the others' answers; empty if it gave none."""
    engine, prompt = ctx.members[seat.model], ctx.prompt
    shown = Candidates.shuffled(ctx.answers, seed)
    count = len(shown.shown)
    messages = prompts.ranking_messages(for_judge(prompt, engine.capabilities).messages, shown.texts, shown.nonce)
    schema = prompts.ranking_schema(count)
    form = Form("response_format", {"type": "json_schema", "json_schema": {"name": "ranking", "schema": schema}})
    asked = Prompt(messages, prompt.tools, "none" if prompt.tools else None, form=form, watched=False)
    try:
        async with asyncio.timeout(timeout_s):
            sampling = brief(seat.sampling, engine.capabilities, 16 + 8 * count)
            letters = value_of(await voice.say(engine, asked, sampling))
    except (EngineError, TimeoutError, ValueError):
        return []
    own = set(seat.answer_names)
    told = [letter for letter in letters if isinstance(letter, str)] if isinstance(letters, list) else []
    ranked = dict.fromkeys(shown.labels[letter] for letter in told if letter in shown.labels)
    return [name for name in ranked if name not in own]
