"""What is seen of a running engine that is not well, and what is done about it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from cappella.engines.circuit_breaker import BREAKS_IN_A_ROW
from cappella.engines.health import Health
from cappella.engines.vllm.client import VllmEngine
from cappella.errors import EngineError
from cappella.types import Prompt, Sampling
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Script, ScriptedEngine

HUNG_AFTER_S = 0.9
LOOK_S = 0.02


@pytest.fixture
async def health(fake_engines: FakeEngines) -> AsyncIterator[Health]:
    health = Health(fake_engines.engines["ann"], HUNG_AFTER_S)
    yield health
    await health.rest()


@pytest.fixture
def server(fake_engines: FakeEngines) -> ScriptedEngine:
    return fake_engines.servers["ann"]


@pytest.fixture
def engine(fake_engines: FakeEngines) -> VllmEngine:
    return fake_engines.engines["ann"]


async def looking(health: Health, until: Callable[[], bool], timeout_s: float = 10.0) -> str | None:
    """Look until something is so, or the engine is dead; then why."""
    async with asyncio.timeout(timeout_s):
        while not until():
            if cause := await health.look():
                return cause
            await asyncio.sleep(LOOK_S)
    return None


async def ask(engine: VllmEngine) -> None:
    async for _ in engine.chat(Prompt([{"role": "user", "content": "?"}]), Sampling()):
        pass


async def broken_calls(engine: VllmEngine, count: int) -> None:
    for _ in range(count):
        with pytest.raises(EngineError):
            await ask(engine)


async def test_an_idle_engine_is_asked_for_a_token_now_and_then_and_stays_ready(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    assert await looking(health, lambda: len(server.bodies) > 2) is None
    assert engine.status.state == "ready"
    assert {body["max_completion_tokens"] for body in server.bodies} == {1}


async def test_an_engine_that_answers_is_asked_for_nothing(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    for _ in range(20):
        await ask(engine)
        assert await health.look() is None
    assert len(server.bodies) == 20


async def test_a_core_that_hangs_takes_no_calls_and_then_is_dead(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    server.hangs = True
    assert await looking(health, lambda: engine.status.state == "unhealthy") is None
    with pytest.raises(EngineError, match="unhealthy"):
        await ask(engine)
    assert await looking(health, lambda: False) == "it hung: no token and no step of its core for 0.9 s"


async def test_a_core_that_hung_for_a_moment_takes_calls_again(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    server.hangs = True
    await looking(health, lambda: engine.status.state == "unhealthy")
    assert health._probe
    server.hangs = False
    health._probe.cancel()
    await asyncio.wait({health._probe})
    health._probe = None
    assert await looking(health, lambda: engine.status.state == "ready") is None
    await ask(engine)


async def test_a_long_prompt_is_no_hang_while_the_core_steps(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    server.hangs = True

    def step() -> bool:
        server.steps += 1
        return server.steps > 2 * HUNG_AFTER_S / LOOK_S

    assert await looking(health, step) is None
    assert engine.status.state == "ready"


async def test_calls_that_break_in_a_row_open_the_circuit_and_a_token_closes_it(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    fake_engines.let("ann", lambda body: Script() if body.get("max_completion_tokens") == 1 else Script(ending="break"))
    await broken_calls(engine, BREAKS_IN_A_ROW - 1)
    await health.look()
    assert engine.status.state == "ready"
    await broken_calls(engine, 1)
    await health.look()
    assert (engine.status.state, engine.status.stage) == ("unhealthy", "its last calls broke")
    assert await looking(health, lambda: engine.status.state == "ready") is None
    await broken_calls(engine, 1)
    assert await looking(health, lambda: engine.status.state == "unhealthy") is None


async def test_a_call_that_ends_well_between_the_others_keeps_the_circuit_closed(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    for _ in range(BREAKS_IN_A_ROW):
        fake_engines.let("ann", Script(ending="garbage"))
        await broken_calls(engine, BREAKS_IN_A_ROW - 1)
        fake_engines.let("ann", Script())
        await ask(engine)
    assert await health.look() is None
    assert engine.status.state == "ready"


async def test_an_engine_that_breaks_every_call_is_dead_though_it_gives_a_token(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    fake_engines.let("ann", lambda body: Script() if body.get("max_completion_tokens") == 1 else Script(ending="break"))
    cause = None
    for _ in range(10):
        while cause is None and not engine.circuit_breaker.broken:
            await broken_calls(engine, 1)
        cause = cause or await looking(health, lambda: not engine.circuit_breaker.broken)
    assert cause == "its calls break, though it gives a token when asked for one"


async def test_an_engine_that_refuses_every_probe_is_dead(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    fake_engines.let("ann", Script(ending="error"))
    await broken_calls(engine, BREAKS_IN_A_ROW)
    cause = await looking(health, lambda: False)
    assert cause == "it gave no token when asked for one: out of memory"


async def test_a_sleeper_is_asked_for_nothing(health: Health, server: ScriptedEngine, engine: VllmEngine) -> None:
    engine.status.state = "asleep"
    server.hangs = True
    await asyncio.sleep(HUNG_AFTER_S / 3)
    for _ in range(5):
        assert await health.look() is None
    assert (server.bodies, engine.status.state) == ([], "asleep")


async def test_calls_that_broke_with_an_earlier_process_count_nothing_against_the_next(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    fake_engines.let("ann", Script(ending="held"))
    old = [asyncio.create_task(broken_calls(engine, 1)) for _ in range(BREAKS_IN_A_ROW)]
    assert await eventually(lambda: engine.in_flight == BREAKS_IN_A_ROW)
    engine.circuit_breaker.begin_life()
    await engine.close()
    await asyncio.gather(*old)
    assert await health.look() is None
    assert engine.status.state == "ready"
    fake_engines.let("ann", Script(ending="break"))
    await broken_calls(engine, BREAKS_IN_A_ROW)
    engine.circuit_breaker.begin_life()
    assert await health.look() is None
    assert engine.status.state == "ready"
