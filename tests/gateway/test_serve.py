"""What `cappella serve` says while its engines start."""

import asyncio

import httpx
import pytest

from cappella.engines.status import EngineStatus
from cappella.gateway import console, serve
from cappella.gateway.app import create_app
from support.fake_engines import FakeEngines, gateway_config


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
    watching = asyncio.create_task(serve._watch_start(gateway_config(), statuses, console.ForPeople()))
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
    await serve._watch_start(gateway_config(), statuses, console.ForPeople())
    assert "answers now" not in capsys.readouterr().err


def test_a_client_drops_an_idle_connection_before_the_gateway_does() -> None:
    kept_by_clients_s = httpx.Limits().keepalive_expiry
    assert kept_by_clients_s
    server = serve.http_server(create_app(gateway_config(), FakeEngines()))  # type: ignore[arg-type]
    assert server.config.timeout_keep_alive > 2 * kept_by_clients_s
