"""The members rank the answers, anonymous and shuffled; what a member says of its own answers does not count."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from random import Random

from cappella.config.options import Seat, Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.choice import brief
from cappella.ensemble.messages import for_judge
from cappella.ensemble.run import Answer, Call
from cappella.ensemble.structured.json_value import value_of
from cappella.errors import EngineError
from cappella.types import Form, Prompt


async def rank(
    engines: Mapping[str, Engine], prompt: Prompt, answers: Sequence[Answer], settings: Settings, timeout_s: float
) -> tuple[list[str] | None, list[Call]]:
    """The names of the answers, best first by the mean of the members' places (Borda); None if nobody ranked them."""
    voices = [EngineCall("review", seat.name) for seat in settings.panel]
    ballots = await asyncio.gather(
        *(
            _ballot(engines[seat.model], prompt, answers, seat, voice, settings.seed + number, timeout_s)
            for number, (seat, voice) in enumerate(zip(settings.panel, voices, strict=True))
        )
    )
    places: dict[str, list[float]] = {answer.name: [] for answer in answers}
    for ballot in ballots:
        for place, name in enumerate(ballot):
            places[name].append(place / max(1, len(ballot) - 1))
    calls = [voice.call for voice in voices if voice.spoke]
    if not any(places.values()):
        return None, calls
    # An answer that nobody but its own member ranked stands in the middle.
    return sorted(places, key=lambda name: sum(places[name]) / len(places[name]) if places[name] else 0.5), calls


async def _ballot(
    engine: Engine,
    prompt: Prompt,
    answers: Sequence[Answer],
    seat: Seat,
    voice: EngineCall,
    seed: int,
    timeout_s: float,
) -> list[str]:
    """One member's order of the others' answers; empty if it gave none."""
    shown = list(answers)
    Random(seed).shuffle(shown)
    names = dict(zip(prompts.labels(len(shown)), (answer.name for answer in shown), strict=True))
    texts = [prompts.shown(answer) for answer in shown]
    messages = prompts.ranking_messages(for_judge(prompt, engine.capabilities).messages, texts, secrets.token_hex(4))
    schema = prompts.ranking_schema(len(shown))
    form = Form("response_format", {"type": "json_schema", "json_schema": {"name": "ranking", "schema": schema}})
    asked = Prompt(messages, prompt.tools, "none" if prompt.tools else None, form=form, watched=False)
    try:
        async with asyncio.timeout(timeout_s):
            sampling = brief(seat.sampling, engine.capabilities, 16 + 8 * len(shown))
            letters = value_of(await voice.say(engine, asked, sampling))
    except (EngineError, TimeoutError, ValueError):
        return []
    own = set(seat.answer_names)
    told = [letter for letter in letters if isinstance(letter, str)] if isinstance(letters, list) else []
    ranked = dict.fromkeys(names[letter] for letter in told if letter in names)
    return [name for name in ranked if name not in own]
