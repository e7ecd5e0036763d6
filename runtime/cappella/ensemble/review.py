"""Peer review: the members rank the answers, anonymous and shuffled. A member's rank of its own answers is dropped."""

import asyncio
from collections.abc import Sequence

from cappella.config.options import Seat
from cappella.engines import waiting
from cappella.engines.context_size import prompt_work
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.context import RunContext
from cappella.ensemble.events import Reviewed
from cappella.ensemble.messages import for_judge
from cappella.ensemble.run import Answer
from cappella.ensemble.shares import Reply, fit
from cappella.ensemble.structured.json_value import parse_json
from cappella.ensemble.token_limits import short_sampling
from cappella.errors import EngineError
from cappella.threads import off_loop_if_large
from cappella.types import OutputFormat, Prompt


async def rank_answers(ctx: RunContext) -> None:
    """Set `ctx.ranking`, if the settings ask for a review and at least one member gave a ranking. Members are asked once."""
    if not ctx.settings.review or ctx.review_calls:
        return
    panel = ctx.settings.panel
    calls = [EngineCall("review", seat.name) for seat in panel]
    timeout_s = min(ctx.settings.round_timeout_s, ctx.deadline.panel_remaining_s)
    ballots = await asyncio.gather(
        *(
            _ballot(ctx, seat, call, ctx.settings.seed + number, timeout_s)
            for number, (seat, call) in enumerate(zip(panel, calls, strict=True))
        )
    )
    ctx.review_calls += [call.record for call in calls if call.was_called]
    ctx.ranking = _mean_ranking(ctx.answers, ballots)
    if ctx.ranking is not None:
        ctx.emit(Reviewed(ctx.ranking))


def _mean_ranking(answers: Sequence[Answer], ballots: Sequence[Sequence[str]]) -> list[str] | None:
    """The answers' names, best first, by their mean place on the ballots (Borda count); None if no ballot has any."""
    places: dict[str, list[float]] = {answer.name: [] for answer in answers}
    for ballot in ballots:
        for place, name in enumerate(ballot):
            places[name].append(place / max(1, len(ballot) - 1))
    if not any(places.values()):
        return None
    # An answer that no other member ranked goes to the middle.
    return sorted(places, key=lambda name: sum(places[name]) / len(places[name]) if places[name] else 0.5)


async def _ballot(ctx: RunContext, seat: Seat, call: EngineCall, seed: int, timeout_s: float) -> list[str]:
    """One member's ranking of the other members' answers, best first; empty if it gave none."""
    engine, prompt = ctx.members[seat.model], ctx.prompt
    asked = await off_loop_if_large(prompt_work(prompt), for_judge, prompt, engine.capabilities)
    count = len(ctx.answers)
    sampling = short_sampling(seat.sampling, engine.capabilities, 16 + 8 * count)
    shuffled = Candidates.shuffled(ctx.answers, seed)
    candidates = (await fit(shuffled, asked, engine, Reply(sampling.max_completion_tokens))).candidates
    messages = prompts.ranking_messages(asked.messages, candidates.texts, candidates.nonce)
    json_schema = {"name": "ranking", "schema": prompts.ranking_schema(count)}
    output_format = OutputFormat("response_format", {"type": "json_schema", "json_schema": json_schema})
    tool_choice = "none" if prompt.tools else None
    question = Prompt(messages, prompt.tools, tool_choice, output_format=output_format, watched=False)
    try:
        async with waiting.timeout(timeout_s):
            reply = parse_json(await call.complete(engine, question, sampling))
    except (EngineError, TimeoutError, ValueError):
        return []
    letters = [letter for letter in reply if isinstance(letter, str)] if isinstance(reply, list) else []
    ranked = dict.fromkeys(candidates.labels[letter] for letter in letters if letter in candidates.labels)
    return [name for name in ranked if name not in set(seat.answer_names)]
