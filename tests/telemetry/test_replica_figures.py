"""Figures and metrics of a model on several servers: one that is slow, broken or comes back spoils nothing of the others."""

from collections.abc import Mapping
from types import SimpleNamespace

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cappella.engines.status import EngineState
from cappella.telemetry import engine_metrics, figures_history, snapshot
from cappella.telemetry.engine_metrics import Figures, Gauges, Reading
from cappella.telemetry.figures_history import FiguresHistory
from cappella.telemetry.snapshot import Snapshot
from support.real_deployment import ROOT
from support.replica_house import House

Samples = Mapping[tuple[str, str | None, str | None], float]


class Clock:
    """The time of the figures, and the figures at that time."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(engine_metrics, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(figures_history, "time", SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now))
        self._house = house
        self._gauges = Gauges(lambda: ())

    def tell(self, name: str, tokens: int, running: int = 1) -> None:
        server, labels = self._house.servers[name], '{model_name="big"}'
        server.page = f"vllm:generation_tokens_total{labels} {tokens}\nvllm:num_requests_running{labels} {running}\n"
        server.page_status = 200

    async def read(self) -> Figures:
        """The figures two seconds later."""
        self.now += 2.0
        return (await self.reading()).figures["big"]

    async def reading(self) -> Reading:
        return await self._gauges.read({"big": self._house.big}, dict, False)


async def test_figures_are_sums_over_the_replicas(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(house, monkeypatch)
    for tokens in (100, 150):
        for name in house.servers:
            clock.tell(name, tokens, running=2)
        found = await clock.read()
    assert (found.running, found.tokens_per_s) == (6, 75.0)


async def test_a_slow_replica_leaves_the_others_their_figures(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(house, monkeypatch)
    house.servers["big-2"].holds_figures = True
    for name in house.servers:
        clock.tell(name, 100)
    # On a busy machine another may be late now and then, too.
    assert any([(await clock.read()).running == 2 for _ in range(3)])


async def test_the_counter_of_a_replica_that_comes_back_is_no_speed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rates = Clock(house, monkeypatch), []
    for tokens, state in ((0, "ready"), (20, "restarting"), (40, "ready"), (60, "ready")):
        clock.tell("big-1", 1000 + tokens)
        clock.tell("big-2", 5000 + tokens)
        clock.tell("big-3", 9_000_000 + tokens)
        house.state("big-3", state)
        rates.append((await clock.read()).tokens_per_s)
    # Of two servers while the third is away; of that over the whole time since it was seen last.
    assert rates == [None, 20.0, 30.0, 30.0]


async def test_a_replica_that_starts_anew_takes_nothing_from_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rates = Clock(house, monkeypatch), []
    for tokens, of_third in ((0, 9000), (20, 0), (40, 20)):
        clock.tell("big-1", 1000 + tokens)
        clock.tell("big-2", 5000 + tokens)
        clock.tell("big-3", of_third)
        rates.append((await clock.read()).tokens_per_s)
    assert rates == [None, 20.0, 30.0]


async def test_the_last_hour_has_no_spike_and_no_gap_for_one_replica(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(house, monkeypatch)
    history = FiguresHistory(clock.reading, lambda: (0, 0))
    states: list[EngineState] = ["ready", "ready", "failed", "ready", "ready"]
    for count, state in enumerate(states):
        for number, name in enumerate(house.servers):
            clock.tell(name, 1_000_000 * number + 100 * count)
        house.state("big-3", state)
        await history.sample()
        clock.now += 10.0
    assert history.over_time()["tokens_per_s"]["big"] == [30.0, 20.0, 20.0, 30.0]


async def scraped(house: House) -> Samples:
    now = Snapshot({"big": house.big}, (), {}, {}, {}, {}, {}, {"big": house.big.replicas})
    families = text_string_to_metric_families((await snapshot.render(now)).decode())
    samples = [sample for family in families for sample in family.samples]
    return {(each.name, each.labels.get("replica"), each.labels.get("state")): each.value for each in samples}


async def test_each_replica_has_its_own_metrics_and_an_unreadable_page_spoils_only_its_own(house: House) -> None:
    house.servers["big-2"].page, house.servers["big-2"].page_status = 'vllm:num_requests_running{a="b"} oops', 200
    samples = await scraped(house)
    assert {replica for name, replica, _ in samples if name == "vllm:num_requests_running"} == {"big-1", "big-3"}


@pytest.mark.parametrize(
    ("state", "fires"),
    [
        ("ready", False),
        ("asleep", False),
        ("stopped", False),
        ("unhealthy", True),
        ("restarting", True),
        ("failed", True),
    ],
)
async def test_the_alert_for_a_replica_fires_unless_it_sleeps(house: House, state: EngineState, fires: bool) -> None:
    groups = yaml.safe_load((ROOT / "scripts" / "deploy" / "alerts.yaml").read_text())["groups"]
    (rule,) = (each for group in groups for each in group["rules"] if each["alert"] == "CappellaReplicaDown")
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(rule["expr"]), lambda node: nodes.append(node))
    (selector,) = (node for node in nodes if isinstance(node, promql_parser.VectorSelector))
    (matcher,) = selector.matchers.matchers
    house.state("big-2", state)
    samples = await scraped(house)
    chosen = [
        value
        for (name, replica, of), value in samples.items()
        if name == selector.name and replica == "big-2" and of in matcher.value.split("|")
    ]
    assert chosen
    assert (max(chosen) == 1) == fires
