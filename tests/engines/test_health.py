"""The health check of a running engine: probes, the circuit breaker, and the cause of death."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from cappella.engines.circuit_breaker import MAX_BROKEN_REQUESTS
from cappella.engines.health import Health
from cappella.engines.vllm.client import VllmEngine
from cappella.errors import EngineError, EngineRejected
from cappella.types import Prompt, Sampling
from support.clock import Clock
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Json, Script, ScriptedEngine

HUNG_AFTER_S = 0.9
CHECK_S = 0.02


@pytest.fixture
async def health(fake_engines: FakeEngines) -> AsyncIterator[Health]:
    health = Health(fake_engines.engines["ann"], HUNG_AFTER_S)
    yield health
    await health.pause()


@pytest.fixture
def server(fake_engines: FakeEngines) -> ScriptedEngine:
    return fake_engines.servers["ann"]


@pytest.fixture
def engine(fake_engines: FakeEngines) -> VllmEngine:
    return fake_engines.engines["ann"]


async def check_until(health: Health, until: Callable[[], bool], timeout_s: float = 10.0) -> str | None:
    """Check until a condition holds, or the engine is dead; then the cause."""
    async with asyncio.timeout(timeout_s):
        while not until():
            if cause := await health.check():
                return cause
            await asyncio.sleep(CHECK_S)
    return None


async def ask(engine: VllmEngine, text: str = "?") -> None:
    async for _ in engine.chat(Prompt([{"role": "user", "content": text}]), Sampling()):
        pass


async def broken_calls(engine: VllmEngine, count: int, kind: type[EngineError] = EngineError) -> None:
    """So many different requests that fail."""
    for number in range(count):
        with pytest.raises(kind):
            await ask(engine, f"{number}?")


def breaks_all_but_probes(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", lambda body: Script() if body.get("max_completion_tokens") == 1 else Script(ending="break"))


def refusal(code: int, kind: str = "BadRequestError") -> Json:
    return {"error": {"message": "Grammar error: unknown name", "type": kind, "param": None, "code": code}}


async def test_an_idle_engine_is_probed_now_and_then_and_stays_ready(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    # On a busy machine a probe may take so long that the engine is unhealthy for a moment.
    assert await check_until(health, lambda: len(server.bodies) > 2 and engine.status.state == "ready") is None
    assert {body["max_completion_tokens"] for body in server.bodies} == {1}


async def test_an_engine_that_answers_is_not_probed(health: Health, server: ScriptedEngine, engine: VllmEngine) -> None:
    for _ in range(20):
        await ask(engine)
        assert await health.check() is None
    assert len(server.bodies) == 20


async def test_a_core_that_hangs_takes_no_calls_and_then_is_dead(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    server.hangs = True
    assert await check_until(health, lambda: engine.status.state == "unhealthy") is None
    with pytest.raises(EngineError, match="unhealthy"):
        await ask(engine)
    assert await check_until(health, lambda: False) == "hung: no token and no scheduler step for 0.9 s"


async def test_a_core_that_hung_for_a_moment_takes_calls_again(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    server.hangs = True
    await check_until(health, lambda: engine.status.state == "unhealthy")
    assert health._probe
    server.hangs = False
    health._probe.cancel()
    await asyncio.wait({health._probe})
    health._probe = None
    assert await check_until(health, lambda: engine.status.state == "ready") is None
    await ask(engine)


async def test_a_long_prompt_is_no_hang_while_the_core_steps(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    server.hangs = True

    def step() -> bool:
        server.steps += 1
        return server.steps > 2 * HUNG_AFTER_S / CHECK_S

    assert await check_until(health, step) is None
    assert engine.status.state == "ready"


def core(rate: float) -> Callable[[], float]:
    """CPU seconds of a core that uses a share of one CPU."""
    return lambda: rate * time.monotonic()


async def cause_within(health: Health, clock: Clock, engine: VllmEngine, seconds: int) -> tuple[str | None, set[str]]:
    """What a check each second finds within so many of them, and the states of the engine meanwhile."""
    states: set[str] = set()
    try:
        for _ in range(seconds):
            clock.advance(1.0)
            cause = await health.check()
            states.add(engine.status.state)
            if cause:
                return cause, states
        return None, states
    finally:
        await health.pause()


HUNG = "hung: no token and no scheduler step for 60 s"


@pytest.mark.parametrize(
    ("rate", "is_stopped", "seconds", "cause", "states"),
    [
        pytest.param(0.1, False, 300, None, {"ready"}, id="a long step of a core that computes is no hang"),
        pytest.param(1.0, False, 700, HUNG, {"ready"}, id="a core that computes without end is dead"),
        pytest.param(0.0, False, 70, HUNG, {"ready", "unhealthy"}, id="a core that waits takes no calls and is dead"),
        pytest.param(1.0, True, 70, HUNG, {"ready", "unhealthy"}, id="it excuses no server that does not answer"),
    ],
)
async def test_a_core_without_tokens_is_judged_by_its_cpu_time(
    clock: Clock,
    server: ScriptedEngine,
    engine: VllmEngine,
    rate: float,
    is_stopped: bool,
    seconds: int,
    cause: str | None,
    states: set[str],
) -> None:
    """`rate` is the share of a CPU that the core uses."""
    server.hangs, server.is_stopped = True, is_stopped
    engine.circuit_breaker.record_output()
    assert await cause_within(Health(engine, 60, core(rate)), clock, engine, seconds) == (cause, states)


async def test_different_requests_that_break_in_a_row_have_the_engine_probed(
    health: Health, fake_engines: FakeEngines, server: ScriptedEngine, engine: VllmEngine
) -> None:
    fake_engines.let("ann", lambda body: Script(ending="error"))
    await broken_calls(engine, MAX_BROKEN_REQUESTS - 1)
    await health.check()
    assert (engine.status.state, len(server.bodies)) == ("ready", MAX_BROKEN_REQUESTS - 1)
    await ask_broken(engine, "another")
    assert await check_until(health, lambda: engine.status.state == "unhealthy") is None
    fake_engines.let("ann", Script())
    assert await check_until(health, lambda: engine.status.state == "ready") is None


async def ask_broken(engine: VllmEngine, text: str) -> None:
    with pytest.raises(EngineError):
        await ask(engine, text)


async def test_the_same_request_breaks_once_however_often_it_is_asked(
    health: Health, fake_engines: FakeEngines, server: ScriptedEngine, engine: VllmEngine
) -> None:
    breaks_all_but_probes(fake_engines)
    for _ in range(3 * MAX_BROKEN_REQUESTS):
        await ask_broken(engine, "again")
    assert not engine.circuit_breaker.is_open
    await health.check()
    assert len(server.bodies) == 3 * MAX_BROKEN_REQUESTS


@pytest.mark.parametrize(
    "script",
    [
        Script((), refuse=(400, refusal(400))),
        Script((), refuse=(500, refusal(500))),
        Script((), ending="refused", refusal=refusal(400)),
        Script((), ending="refused", refusal=refusal(500)),
    ],
    ids=["status", "status 500", "stream", "stream 500"],
)
async def test_a_refused_request_is_never_counted_against_the_engine(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine, script: Script
) -> None:
    fake_engines.let("ann", script)
    await broken_calls(engine, 3 * MAX_BROKEN_REQUESTS, EngineRejected)
    assert not engine.circuit_breaker.is_open
    with pytest.raises(EngineRejected, match="Grammar error: unknown name"):
        await ask(engine)


async def test_a_call_that_ends_well_between_the_others_keeps_the_circuit_closed(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    for _ in range(MAX_BROKEN_REQUESTS):
        fake_engines.let("ann", Script(ending="garbage"))
        await broken_calls(engine, MAX_BROKEN_REQUESTS - 1)
        fake_engines.let("ann", Script())
        await ask(engine)
    assert await health.check() is None
    assert engine.status.state == "ready"


async def test_an_engine_whose_probes_give_tokens_is_neither_ended_nor_kept_from_others(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    breaks_all_but_probes(fake_engines)
    for _ in range(6):
        await broken_calls(engine, MAX_BROKEN_REQUESTS)
        assert engine.circuit_breaker.is_open
        assert await check_until(health, lambda: not engine.circuit_breaker.is_open) is None
        assert engine.status.state == "ready"


async def test_an_engine_that_refuses_every_probe_is_dead(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    fake_engines.let("ann", Script(ending="error"))
    await broken_calls(engine, MAX_BROKEN_REQUESTS)
    cause = await check_until(health, lambda: False)
    assert cause == "no token when probed: the engine failed (500): see its log"


async def test_an_engine_that_is_asleep_is_not_probed(
    health: Health, server: ScriptedEngine, engine: VllmEngine
) -> None:
    engine.status.state = "asleep"
    server.hangs = True
    await asyncio.sleep(HUNG_AFTER_S / 3)
    for _ in range(5):
        assert await health.check() is None
    assert (server.bodies, engine.status.state) == ([], "asleep")


async def test_broken_calls_of_an_earlier_launch_do_not_count_for_the_next(
    health: Health, fake_engines: FakeEngines, engine: VllmEngine
) -> None:
    fake_engines.let("ann", Script(ending="held"))
    old = [asyncio.create_task(broken_calls(engine, 1)) for _ in range(MAX_BROKEN_REQUESTS)]
    assert await eventually(lambda: engine.in_flight == MAX_BROKEN_REQUESTS)
    engine.circuit_breaker.begin_launch()
    await engine.close()
    await asyncio.gather(*old)
    assert await health.check() is None
    assert engine.status.state == "ready"
    fake_engines.let("ann", Script(ending="break"))
    await broken_calls(engine, MAX_BROKEN_REQUESTS)
    engine.circuit_breaker.begin_launch()
    assert await health.check() is None
    assert engine.status.state == "ready"
