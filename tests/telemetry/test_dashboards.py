"""The dashboard and the alert rules use metrics and labels that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cappella.config import UrlTool
from cappella.engines.replicas.replica import Replica
from cappella.placement.gpus import Gpu
from cappella.telemetry import snapshot
from cappella.telemetry.snapshot import Snapshot
from cappella.tools.mcp.server import from_url
from cappella.tools.servers import CountedServer
from support.fake_engines import FakeEngines
from support.real_deployment import ROOT, Deployment
from support.scripted_engine import Script

DEPLOY = ROOT / "scripts" / "deploy"
# vLLM's metrics; the last test compares them with a real engine.
VLLM = ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")

Labels = dict[str, set[str]]
"""Label names by the name of a sample."""


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    panel_queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$__rate_interval", "5m") for query in panel_queries] + [rule["expr"] for rule in rules()]


def nodes(expr: promql_parser.Expr) -> list[promql_parser.Expr]:
    found: list[promql_parser.Expr] = []
    promql_parser.walk(expr, lambda node: found.append(node))
    return found


def selectors(expr: promql_parser.Expr) -> Iterator[tuple[str, set[str]]]:
    """Each metric name with the labels that it is selected by."""
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
    """All samples of a gateway after an ok run, a degraded run and one with adaptive samples, with early prefill and an unknown field."""
    words = tuple("word " * 30 for _ in range(30))
    async with aiohttp.ClientSession() as http:
        for cat in (Script(words), Script(words, ending="break")):
            fake_engines.let("cat", cat)
            body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "unknown": 1}
            async with http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
                assert reply.status == 200
        fake_engines.let(
            "cat", lambda body: Script(samples=("42",) * body.get("n", 1)) if body.get("n", 1) > 1 else Script(("42",))
        )
        body["fusion"] = {"analysis_models": ["cat"], "samples": {"most": 5}, "strategy": "vote", "temperature": 0.7}
        async with http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
            assert reply.status == 200, await reply.text()
        async with http.get(f"{gateway}/metrics") as reply:
            page = await reply.text()
    # Samples that this gateway lacks: GPUs, queues, tool servers, replicas.
    tools = {"git": CountedServer(from_url("git", UrlTool(url="http://127.0.0.1:1/mcp")))}
    gpus = [Gpu(0, "GPU-0", "one", 2, 1, 50, None, frozenset())]
    replicas = {"ann": [Replica("ann-1", fake_engines.engines["ann"], 4)]}
    now = Snapshot({}, gpus, {"e": 1}, {"e": 1}, {"e": True}, {"e": 1.0}, tools, replicas)
    found = labels_of(page) | labels_of((await snapshot.render(now)).decode())
    return found | {name: {"model", "model_name", "engine"} for name in VLLM}


async def test_queries_use_existing_metrics_and_labels(known: Labels) -> None:
    for query in queries():
        for name, by in selectors(promql_parser.parse(query)):
            assert name in known, query
            assert by <= known[name], query


async def test_queries_aggregate_by_existing_labels(known: Labels) -> None:
    sums = [node for query in queries() for node in nodes(promql_parser.parse(query)) if _by(node)]
    assert len(sums) > 20
    for node in sums:
        for name, _ in selectors(node):
            assert _by(node) <= known[name], node.prettify()


def _by(node: promql_parser.Expr) -> set[str]:
    modifier = node.modifier if isinstance(node, promql_parser.AggregateExpr) else None
    return set(modifier.labels) if modifier else set()


def test_every_metric_of_the_gateway_is_on_the_dashboard_or_in_a_rule() -> None:
    used = " ".join(queries())
    names = re.findall(r'"cappella_(\w+)"|_(?:counter|histogram|gauge)\(\s*"(\w+)"', _sources())
    ours = {f"cappella_{first or second}" for first, second in names}
    assert len(ours) > 20
    assert {name for name in ours if name not in used} == set()


def _sources() -> str:
    folder = ROOT / "runtime" / "cappella" / "telemetry"
    return "".join(Path(folder, name).read_text() for name in ("metrics.py", "snapshot.py"))


def test_every_rule_has_a_summary_and_a_hint() -> None:
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
def test_real_engines_have_the_used_metrics(demo: Deployment) -> None:
    known = labels_of(demo.text("/metrics"))
    for name in VLLM:
        assert "model" in known[name]
