"""What `cappella serve` says while its engines start."""

import asyncio
import time

import httpx
import pytest

from cappella.engines.reconciler import ASLEEP
from cappella.engines.status import EngineStatus, Failure
from cappella.gateway import console, http_server, serve
from cappella.gateway.app import create_app
from support.fake_engines import FakeEngines, eventually, gateway_config
from support.scripted_engine import Script


@pytest.fixture
def statuses() -> dict[str, EngineStatus]:
    return {name: EngineStatus(name) for name in gateway_config().models}


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.console, "_force_terminal", request.param)


@pytest.mark.usefixtures("terminal")
async def test_an_ensemble_that_can_answer_before_the_last_engine_is_up_is_announced_once(
    statuses: dict[str, EngineStatus], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "REFRESH_S", 0.02)
    watching = asyncio.create_task(serve._watch_start(gateway_config(), statuses, console.TextReporter()))
    for name in ("ann", "bob", "judge", "cat"):
        await asyncio.sleep(2 * serve.REFRESH_S)
        said = capsys.readouterr().err
        assert "answers now" not in said or name == "cat"
        if name == "cat":
            assert said.count("cappella/default answers now; still starting: cat") == 1
        statuses[name].state = "ready"
    await watching
    assert "answers now" not in capsys.readouterr().err


async def test_nothing_is_announced_when_all_engines_come_up_together(
    statuses: dict[str, EngineStatus], capsys: pytest.CaptureFixture[str]
) -> None:
    for status in statuses.values():
        status.state = "ready"
    await serve._watch_start(gateway_config(), statuses, console.TextReporter())
    assert "answers now" not in capsys.readouterr().err


async def test_what_fails_while_others_still_start_is_told_with_the_time(
    statuses: dict[str, EngineStatus], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "REFRESH_S", 0.01)
    for name in ("ann", "bob", "judge"):
        statuses[name].state = "ready"
    watching = asyncio.create_task(serve._watch_start(gateway_config(), statuses, console.TextReporter()))
    said: list[str] = []

    async def tells(line: str) -> bool:
        def found() -> bool:
            said.extend(capsys.readouterr().err.splitlines())
            return any(each[20:] == line and time.strptime(each[:19], "%Y-%m-%d %H:%M:%S") for each in said)

        return await eventually(found)

    assert await tells("cappella/default answers now; still starting: cat")
    judge = statuses["judge"]
    judge.state, judge.restarts = "restarting", 1
    judge.failures.append(Failure(time.time(), "it hung", None))
    assert await tells("judge failed: it hung")
    assert await tells("judge restarts (1 so far)")
    assert await tells("cappella/default cannot answer: its judge or too many members are down")
    judge.state = "ready"
    assert await tells("judge is ready")
    statuses["cat"].state = "ready"
    await watching


class Deployment:
    """Engines whose states a test sets."""

    def __init__(self, statuses: dict[str, EngineStatus]) -> None:
        config = gateway_config()
        self.config = config.model_copy(update={"ensembles": {"default": config.ensembles["default"]}})
        self.statuses = statuses
        self.replica_statuses: dict[str, EngineStatus] = {}


async def test_changes_of_an_engine_are_printed_one_a_line_with_the_time(
    statuses: dict[str, EngineStatus], capsys: pytest.CaptureFixture[str]
) -> None:
    for status in statuses.values():
        status.state = "ready"
    deployment = Deployment(statuses)
    following = asyncio.create_task(console.follow(lambda: deployment, console.TextReporter(), 0.01))
    said: list[str] = []

    async def told(*lines: str) -> None:
        async with asyncio.timeout(5):
            while len(said) < len(lines):
                await asyncio.sleep(0.01)
                said.extend(capsys.readouterr().err.splitlines())
        assert [line[20:] for line in said] == list(lines)
        assert all(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in said)
        said.clear()

    await asyncio.sleep(0.05)
    judge = statuses["judge"]
    judge.state, judge.restarts = "restarting", 1
    judge.failures.append(Failure(time.time(), "its process ended: killed by signal 9 (SIGKILL)", "/logs/judge.log"))
    await told(
        "judge failed: its process ended: killed by signal 9 (SIGKILL) (log: /logs/judge.log)",
        "judge restarts (1 so far)",
        "cappella/default cannot answer: its judge or too many members are down",
    )
    judge.state = "ready"
    await told("judge is ready", "cappella/default answers")
    ann = statuses["ann"]
    ann.state, ann.stage = "failed", "gave up after 5 tries: it hung"
    ann.failures.append(Failure(time.time(), "it hung", None))
    await told("ann failed: it hung", "ann gave up after 5 tries: it hung")
    cat = statuses["cat"]
    cat.state, cat.stage = "asleep", ASLEEP["idle"]
    await told("cat sleeps: no call for a while")
    cat.state, cat.stage, cat.wakes, cat.last_wake_s = "ready", "ready", 1, 3.21
    await told("cat woke for a call, in 3.2 s (wake 1)")
    bob = statuses["bob"]
    bob.state, bob.restarts_asked = "restarting", 1
    await told(
        "bob restarts: an operator requested it",
        "cappella/default cannot answer: its judge or too many members are down",
    )
    following.cancel()


def test_a_client_drops_an_idle_connection_before_the_gateway_does() -> None:
    kept_by_clients_s = httpx.Limits().keepalive_expiry
    assert kept_by_clients_s
    fake_engines = FakeEngines()
    fake_engines.serve(gateway_config())
    server = http_server.http_server(create_app(gateway_config(), fake_engines))  # type: ignore[arg-type]
    assert server.config.timeout_keep_alive > 2 * kept_by_clients_s


async def test_a_longer_drain_time_from_a_reload_holds_at_the_stop(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CANCEL_GRACE_S", 0)
    fake_engines.let("ann", Script(("a", "b"), ending="held"))
    first = gateway_config(analysis="off", quorum=3)
    first = first.model_copy(update={"server": first.server.model_copy(update={"drain_s": 0.01})})
    longer = first.model_copy(update={"server": first.server.model_copy(update={"drain_s": 60.0})})
    fake_engines.serve(first)
    server = http_server.http_server(create_app(first, fake_engines, lambda: longer))  # type: ignore[arg-type]
    listener = http_server.bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serve = asyncio.create_task(server.serve(sockets=[listener]))
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        assert (await http.post("/api/reload")).status_code == 200
        body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
        under_way = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        assert await eventually(lambda: fake_engines.servers["ann"].running == 1)
        server.should_exit = True
        # Long enough for uvicorn's own patience of before.
        assert await eventually(lambda: not server.servers[0].is_serving())
        await asyncio.sleep(0.3)
        fake_engines.servers["ann"].released.set()
        assert (await under_way).json()["fusion"]["status"] == "ok"
    await serve
