"""Plans over several nodes: each model inside one of them, and what the network carries."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config
from cappella.errors import ConfigError, DoesNotFit
from cappella.placement import advice, cluster, machine, network, report
from cappella.placement.machine import Machine
from cappella.placement.planner import Plan
from support.weights_folder import TINY, write_model

LLAMA_8B = {**TINY, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}  # fmt: skip
LLAMA_70B = {**LLAMA_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
             "num_attention_heads": 64}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shapes")
    return {name: write_model(root / name, shape) for name, shape in (("8b", LLAMA_8B), ("70b", LLAMA_70B))}


def deployment(shapes: dict[str, Path], members: str, judge: str, **fields: Any) -> Config:
    names = {f"m{n}": shape for n, shape in enumerate(members.split())} | {"judge": judge}
    models = {name: {"weights": str(shapes[shape]), "max_model_len": 8192, **fields} for name, shape in names.items()}
    panel = [name for name in names if name != "judge"]
    return Config.model_validate({"models": models, "ensembles": {"default": {"panel": panel, "judge": "judge"}}})


def nodes_of(plan: Plan, model: str) -> set[str | None]:
    return {device.node for device in plan.machine.devices if device.index in plan.placed[model].gpus}


def test_a_described_cluster_numbers_its_gpus_through_and_knows_each_on_its_node() -> None:
    found = cluster.described("a:2x80GiB, b:24GiB+H100")
    assert [(each.node, each.index, each.index_there) for each in found.devices] == [
        ("a", 0, 0),
        ("a", 1, 1),
        ("b", 2, 0),
        ("b", 3, 1),
    ]
    assert [each.total_bytes >> 30 for each in found.devices][:3] == [80, 80, 24]
    assert found.devices[3].kind is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2x80GiB", "not a node"),
        ("a:", "not a node"),
        ("a:2x80", "node a"),
        ("a:80GiB,a:80GiB", "two nodes a"),
        (",".join(f"n{number}:24GiB" for number in range(65)), "too many"),
    ],
)
def test_a_mistake_in_the_nodes_is_told_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        cluster.described(text)
    assert caught.value.hint


def test_a_panel_too_large_for_one_node_is_spread_and_no_model_leaves_its_node(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "70b 70b", "70b")
    with pytest.raises(DoesNotFit):
        advice.plan(config, machine.described("4x80GiB"))
    plan = advice.plan(config, cluster.described("a:4x80GiB,b:4x80GiB"))
    assert all(len(nodes_of(plan, name)) == 1 for name in plan.placed)
    assert set().union(*(nodes_of(plan, name) for name in plan.placed)) == {"a", "b"}
    used = {device.index: 0 for device in plan.machine.devices}
    for each in plan.placed.values():
        for gpu in each.gpus:
            used[gpu] += each.total_bytes
    assert all(used[device.index] <= device.free_bytes for device in plan.machine.devices)


def test_more_nodes_than_the_search_mixes_still_hold_each_split_inside_one(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "70b 70b 70b", "70b"), cluster.described("a:3x80GiB,b:4x80GiB,c:8x48GiB"))
    assert all(len(nodes_of(plan, name)) == 1 for name in plan.placed)


def test_a_model_that_fits_no_node_is_refused_though_the_cluster_has_the_memory(shapes: dict[str, Path]) -> None:
    on = cluster.described("a:80GiB,b:80GiB,c:80GiB,d:80GiB")
    with pytest.raises(DoesNotFit, match="never split over two nodes"):
        advice.plan(deployment(shapes, "8b", "70b"), on)


def test_nodes_without_a_gpu_take_nothing_where_another_has_one() -> None:
    joined = cluster.joined({"head": machine.own_memory(), "worker": machine.described("24GiB")})
    assert [each.node for each in joined.devices] == ["worker"]
    assert joined.gpu


def test_a_slow_processor_of_a_node_that_takes_nothing_changes_no_number_format() -> None:
    head = Machine(machine.own_memory().devices, gpu=False, slow_in_16_bits=True)
    assert not cluster.joined({"head": head, "worker": machine.described("24GiB")}).slow_in_16_bits
    assert cluster.joined({"a": head, "b": replace(head, slow_in_16_bits=False)}).slow_in_16_bits


def test_two_machines_without_gpus_are_two_memories() -> None:
    joined = cluster.joined({"a": machine.own_memory(), "b": machine.own_memory()})
    assert [(each.node, each.index) for each in joined.devices] == [("a", 0), ("b", 1)]
    assert not joined.gpu


def test_more_answers_send_more_over_the_network(shapes: dict[str, Path]) -> None:
    two, three = (deployment(shapes, members, "8b") for members in ("8b 8b", "8b 8b 8b"))
    assert 0 < network.bytes_per_run(two)["default"] < network.bytes_per_run(three)["default"]


def test_a_plan_of_a_cluster_names_the_node_of_each_model_and_its_network(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "8b", "8b")
    told = report.as_dict(advice.plan(config, cluster.described("a:24GiB,b:24GiB")), config)
    assert {each["node"] for each in told["devices"]} == {"a", "b"}  # type: ignore[attr-defined]
    assert told["ensembles"][0]["network_bytes_per_run"] > 0  # type: ignore[index]
    alone = report.as_dict(advice.plan(config, machine.described("2x24GiB")), config)
    assert alone["ensembles"][0]["network_bytes_per_run"] is None  # type: ignore[index]
