"""Fixtures: scripted engines, a gateway over them, and two real deployments for the whole session."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from hypothesis import HealthCheck, settings

from cappella.engines import reconciler
from support.accepted_connections import closed_with_their_server
from support.clock import Clock
from support.fake_engines import FakeEngines, gateway_config, running_fake_engines, serving
from support.real_deployment import ROOT, Deployment, deployed, shipped_config
from support.replica_house import House

# A shared machine is slow at times; that says nothing of the code. A long search sets the number of examples.
EXAMPLES = int(os.environ.get("CAPPELLA_EXAMPLES", "50"))
settings.register_profile("shared", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: many tests wait for another process."""
    return min(len(os.sched_getaffinity(0)) + 1, 8)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    # Imported here: the kit for a machine with a GPU has no xdist.
    from support.scheduling import EnginesTogether

    return EnginesTogether(config, log)


@pytest.fixture(autouse=True, scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of a start is not the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each process and each client of OpenAI's reads all authorities, which takes longer than most tests: here it is one."""
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    path = tmp_path_factory.mktemp("authority") / "one.pem"
    path.write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(autouse=True, scope="session")
def strict() -> None:
    """A state that changes as it may not is an error here."""
    reconciler.STRICT = True


@pytest.fixture(autouse=True, scope="session")
def forgotten_connections() -> Iterator[None]:
    """One of a test that has ended would be told as the fault of another."""
    with closed_with_their_server():
        yield


@pytest.fixture
async def fake_engines(tmp_path: Path) -> AsyncIterator[FakeEngines]:
    async with running_fake_engines(tmp_path) as fake_engines:
        yield fake_engines


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Three scripted servers of one model."""
    house = House()
    await house.start(tmp_path)
    yield house
    await house.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def gateway(fake_engines: FakeEngines) -> AsyncIterator[str]:
    async with serving(fake_engines, gateway_config()) as url:
        yield url


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(ROOT / "model_configs" / "demo.yaml", tmp_path_factory.mktemp("logs")) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The demo's panel of adapters in one engine, and its judge, which does not copy ahead here."""
    folder = tmp_path_factory.mktemp("adapters")
    config = shipped_config("demo-adapters.yaml")
    del config["models"]["conductor"]["prompt_lookup_tokens"]
    (folder / "adapters.yaml").write_text(json.dumps(config))
    with deployed(folder / "adapters.yaml", folder / "logs") as deployment:
        yield deployment
