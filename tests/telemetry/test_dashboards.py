"""The dashboard and the alert rules ask for figures that there are, by labels that those have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cappella.placement.gpus import Gpu
from cappella.telemetry import snapshot
from cappella.telemetry.snapshot import Snapshot
from support.fake_engines import FakeEngines
from support.real_deployment import ROOT, Deployment
from support.scripted_engine import Script

DEPLOY = ROOT / "scripts" / "deploy"
# What vLLM calls its own, as seen on a real engine: see the last test.
VLLM = ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")

Labels = dict[str, set[str]]
"""By the name of a sample."""


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    drawn = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$__rate_interval", "5m") for query in drawn] + [rule["expr"] for rule in rules()]


def nodes(expr: promql_parser.Expr) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(expr, lambda node: found.append(node))
    return found


def selectors(expr: promql_parser.Expr) -> Iterator[tuple[str, set[str]]]:
    """Each name that is asked for, and the labels that it is chosen by."""
    for node in nodes(expr):
        if isinstance(node, promql_parser.VectorSelector):
            yield str(node.name), {matcher.name for matcher in node.matchers.matchers}


def labels_of(text: str) -> Labels:
    found: Labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture
async def known(fake_engines: FakeEngines, gateway: str) -> Labels:
    """Every figure of a gateway that has seen a good run, a degraded one, and one with early reads."""
    words = tuple("word " * 30 for _ in range(30))
    async with aiohttp.ClientSession() as http:
        for cat in (Script(words), Script(words, ending="break")):
            fake_engines.let("cat", cat)
            body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
            async with http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
                assert reply.status == 200
        async with http.get(f"{gateway}/metrics") as reply:
            page = await reply.text()
    # What this machine has none of, and what nobody met with.
    now = Snapshot(
        {}, [Gpu(0, "GPU-0", "one", 2, 1, 50, None, frozenset())], {"e": 1}, {"e": 1}, {"e": True}, {"e": 1.0}
    )
    found = labels_of(page) | labels_of((await snapshot.render(now)).decode())
    return found | {name: {"model", "model_name", "engine"} for name in VLLM}


async def test_a_query_asks_for_what_there_is_by_labels_that_it_has(known: Labels) -> None:
    for query in queries():
        for name, by in selectors(promql_parser.parse(query)):
            assert name in known, query
            assert by <= known[name], query


async def test_what_a_query_sums_by_is_a_label_of_all_that_it_sums(known: Labels) -> None:
    sums = [node for query in queries() for node in nodes(promql_parser.parse(query)) if _by(node)]
    assert len(sums) > 20
    for node in sums:
        for name, _ in selectors(node):
            assert _by(node) <= known[name], node.prettify()


def _by(node: promql_parser.Expr) -> set[str]:
    modifier = node.modifier if isinstance(node, promql_parser.AggregateExpr) else None
    return set(modifier.labels) if modifier else set()


def test_every_figure_of_ours_is_on_the_dashboard() -> None:
    """Or in a rule: a figure that nobody looks at is not worth its time."""
    asked = " ".join(queries())
    names = re.findall(r'"cappella_(\w+)"|_(?:counter|histogram|gauge)\(\s*"(\w+)"', _sources())
    ours = {f"cappella_{first or second}" for first, second in names}
    assert len(ours) > 20
    assert {name for name in ours if name not in asked} == set()


def _sources() -> str:
    folder = ROOT / "runtime" / "cappella" / "telemetry"
    return "".join(Path(folder, name).read_text() for name in ("metrics.py", "snapshot.py"))


def test_every_rule_says_what_is_wrong_and_how_to_fix_it() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 8
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")  # type: ignore[index]
        assert rule["annotations"].keys() == {"summary", "hint"}  # type: ignore[attr-defined]


def test_panels_do_not_overlap_and_have_a_title() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not own & cells
        assert panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.vllm
def test_real_engines_have_the_figures_that_are_asked_for(demo: Deployment) -> None:
    known = labels_of(demo.text("/metrics"))
    for name in VLLM:
        assert "model" in known[name]
