"""Engines that break in every way that a stream can: each of three hundred requests ends well, labelled, or with an error."""

import asyncio
import random

from support.fake_engines import FakeEngines, eventually, gateway_config, judge_script, serving
from support.fault_drill import run_drill
from support.scripted_engine import Json, Script, too_long

ENDINGS = ("done", "break", "garbage", "odd", "error", "hang")
BROKEN = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}


def unreliable(seed: str, pieces: tuple[str, ...] = ("Hello", " there")) -> Script:
    """Half of them well; the others in some way not."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        return Script(pieces)
    refusals = [(500, BROKEN), too_long().refuse, None]
    return Script(pieces[: chance.randrange(3)], ending=chance.choice(ENDINGS), refuse=chance.choice(refusals))


async def test_all_requests_to_engines_that_break_have_an_end(fake_engines: FakeEngines) -> None:
    calls = iter(range(1_000_000))

    def script(_: Json) -> Script:
        return unreliable(f"{next(calls)}")

    def judge(body: Json) -> Script:
        return judge_script(final=unreliable(f"{next(calls)}", ("The", " final", " answer")))(body)

    for name in fake_engines.servers:
        fake_engines.let(name, judge if name == "judge" else script)
    config = gateway_config(round_timeout_s=0.4, deadline_s=1.0, analysis="off")
    async with serving(fake_engines, config) as url:
        tally = await run_drill(url, 300, lambda: asyncio.sleep(0), direct=None)
        assert not tally.bad
        assert sum(tally.ends.values()) == 300
        assert {"ok", "degraded", "error insufficient_quorum"} <= set(tally.ends)
        assert await eventually(lambda: fake_engines.running == 0)
