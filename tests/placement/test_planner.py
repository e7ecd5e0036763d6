"""Placement plans of real model shapes on described machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella.config import Config
from cappella.errors import ConfigError, DoesNotFit
from cappella.placement import advice, changes, contexts, estimate, machine, planner
from cappella.placement.footprint import footprint
from cappella.placement.machine import Machine
from cappella.placement.planner import Plan
from support.weights_folder import TINY, write_model

GIB = 1 << 30
LLAMA_8B = {**TINY, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}  # fmt: skip
LLAMA_70B = {**LLAMA_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
             "num_attention_heads": 64}  # fmt: skip
LLAMA_1B = {**LLAMA_8B, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "tie_word_embeddings": True, "head_dim": 64}  # fmt: skip

Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shapes")
    configs = {"8b": LLAMA_8B, "70b": LLAMA_70B, "1b": LLAMA_1B}
    return {name: write_model(root / name, config) for name, config in configs.items()}


def deployment(shapes: dict[str, Path], members: str, judge: str, swap: bool = False, **fields: Any) -> Config:
    """A config with members and a judge of these shapes, such as `8b 8b` and `70b`."""
    names = {f"m{n}": shape for n, shape in enumerate(members.split())} | {"judge": judge}
    models = {name: {"weights": str(shapes[shape]), "max_model_len": 8192, **fields} for name, shape in names.items()}
    panel = [name for name in names if name != "judge"]
    ensembles = {"default": {"panel": panel, "judge": "judge"}}
    return Config.model_validate({"models": models, "placement": {"swap": swap}, "ensembles": ensembles})


def fits(plan: Plan) -> None:
    turns: list[int | None] = list(range(len(plan.turns))) or [None]
    for device in plan.machine.devices:
        for turn in turns:
            assert sum(each.total_bytes for each in plan.on(device.index, turn)) <= device.free_bytes


def test_four_models_of_8b_share_an_80_gib_gpu(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "8b 8b 8b", "8b"), machine.described("80GiB"))
    fits(plan)
    assert {each.gpus for each in plan.placed.values()} == {(0,)}
    judge, member = plan.placed["judge"], plan.placed["m0"]
    tables = 131072 * 128 * 2
    assert judge.weight_bytes == pytest.approx(8.03e9 * 2 + tables, rel=0.001)
    # The judge reads three answers per run, so it gets more than a member that writes one.
    assert judge.kv_cache_bytes > member.kv_cache_bytes >= 8192 * 128 * 1024


def test_a_model_that_is_too_large_for_one_gpu_is_split_and_the_others_are_not(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "8b 8b", "70b"), machine.described("4x80GiB"))
    fits(plan)
    assert len(plan.placed["judge"].gpus) == 2
    assert plan.placed["judge"].why == "too large for 1"
    assert all(len(plan.placed[name].gpus) == 1 for name in ("m0", "m1"))


def test_models_spread_over_gpus_that_there_are(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "8b 8b 8b", "8b"), machine.described("4x24GiB"))
    assert sorted(each.gpus for each in plan.placed.values()) == [(0,), (1,), (2,), (3,)]


def with_replicas(config: Config, name: str, replicas: int) -> Config:
    models = {**config.models, name: config.local[name].model_copy(update={"replicas": replicas})}
    return config.model_copy(update={"models": models})


def test_each_replica_has_its_own_place(shapes: dict[str, Path]) -> None:
    config = with_replicas(deployment(shapes, "8b", "8b"), "m0", 3)
    plan = advice.plan(config, machine.described("4x24GiB"))
    fits(plan)
    assert list(plan.placed) == ["m0-1", "m0-2", "m0-3", "judge"]
    assert sorted(each.gpus for each in plan.placed.values()) == [(0,), (1,), (2,), (3,)]
    assert len({each.max_model_len for each in plan.placed.values()}) == 1
    alone = advice.plan(deployment(shapes, "8b", "8b"), machine.described("2x24GiB"))
    ours, theirs = (estimate.estimates(of, each)["default"] for of, each in ((config, plan), (config, alone)))
    assert ours.limited_by == "judge"
    assert ours.runs_at_once >= theirs.runs_at_once


def test_replicas_of_a_judge_get_the_kv_cache_of_one_for_half_the_runs(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "8b", "8b")
    one = advice.plan(config, machine.described("80GiB"))
    two = advice.plan(with_replicas(config, "judge", 2), machine.described("80GiB"))
    fits(two)
    first, second = two.placed["judge-1"], two.placed["judge-2"]
    assert abs(first.kv_cache_bytes - second.kv_cache_bytes) <= 1 << 24
    assert first.kv_cache_bytes < one.placed["judge"].kv_cache_bytes


def test_replicas_that_do_not_fit_are_counted_each(shapes: dict[str, Path]) -> None:
    config = with_replicas(deployment(shapes, "8b", "8b"), "m0", 2)
    with pytest.raises(DoesNotFit, match=r"m0-1 .*m0-2 "):
        advice.plan(config, machine.described("2x24GiB"))


def test_fewer_replicas_are_offered_and_no_swapping_where_a_model_has_several(shapes: dict[str, Path]) -> None:
    config = with_replicas(deployment(shapes, "8b", "1b", kv_cache_bytes="2GiB"), "m0", 3)
    with pytest.raises(DoesNotFit) as caught:
        advice.plan(config, machine.described("24GiB"))
    assert "swap" not in str(caught.value)
    _, footprints, on = advice.measured(config, machine.described("48GiB"))
    offered = list(changes._all(changes.Trial(config, footprints, on)))
    assert "replicas: 2 of m0" in [each.description for each in offered if each]
    assert not any("swap" in each.description for each in offered if each)


def test_a_context_that_is_planned_is_the_same_for_all_replicas(shapes: dict[str, Path]) -> None:
    config = with_replicas(deployment(shapes, "8b", "8b", max_model_len=None), "m0", 2)
    plan = advice.plan(config, machine.described("3x24GiB"))
    assert plan.placed["m0-1"].max_model_len == plan.placed["m0-2"].max_model_len
    served = contexts.applied(config, plan)
    assert served.local["m0"].max_model_len == plan.placed["m0-1"].max_model_len


def test_a_kv_cache_of_a_set_size_is_exact(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "8b", "8b", kv_cache_bytes="3GiB"), machine.described("80GiB"))
    assert [each.kv_cache_bytes for each in plan.placed.values()] == [3 * GIB] * 2


def test_a_kv_cache_too_small_for_one_sequence_is_named(shapes: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"models\.m0\.kv_cache_bytes: max_model_len 8192 needs at least 1026 MiB"):
        advice.plan(deployment(shapes, "8b", "8b", kv_cache_bytes="512MiB"), machine.described("80GiB"))


def test_a_cache_of_a_set_size_is_enough_only_on_a_split_that_leaves_less_to_hold(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "8b", "8b", kv_cache_bytes="600MiB")
    plan = advice.plan(config, machine.described("8x80GiB"))
    assert {len(each.gpus) for each in plan.placed.values()} == {2}


@pytest.mark.parametrize(
    ("gpus", "says"),
    [
        ([5], r"models\.m0\.gpus: \[5\] are not all on this machine, which has 0, 1"),
        ([0, 1, 2], r"not all on this machine"),
    ],
)
def test_a_pin_to_gpus_that_are_not_there_is_named(shapes: dict[str, Path], gpus: list[int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        advice.plan(deployment(shapes, "8b", "8b", gpus=gpus), machine.described("2x80GiB"))


def test_a_gpu_that_is_pinned_twice_is_an_error(shapes: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="gpus has a duplicate: 0, 0"):
        deployment(shapes, "8b", "8b", gpus=[0, 0])


def test_float32_takes_twice_as_much(shapes: dict[str, Path]) -> None:
    plans = [
        advice.plan(deployment(shapes, "8b", "8b", dtype=dtype), machine.described("2x80GiB"))
        for dtype in ("auto", "float32")
    ]
    weights = [plan.placed["m0"].weight_bytes for plan in plans]
    assert weights[1] == pytest.approx(2 * weights[0], rel=0.01)


def test_a_judge_lies_where_the_largest_member_has_room_beside_it(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "8b 8b", "1b", swap=True, max_model_len=2048)
    plan = advice.plan(config, machine.described("6GiB,21GiB"))
    fits(plan)
    assert plan.placed["judge"].gpus == (0,)
    assert len(plan.turns) == 2


def test_a_presets_judge_stays_awake_too(shapes: dict[str, Path]) -> None:
    raw = deployment(shapes, "8b 8b 8b", "8b", swap=True, max_model_len=2048).model_dump(mode="json")
    raw["ensembles"]["default"]["presets"] = {"other": {"judge": "m0"}}
    plan = advice.plan(Config.model_validate(raw), machine.described("64GiB"))
    assert plan.turns
    assert plan.placed["m0"].turn is None


def test_a_split_that_is_not_legal_is_named_before_anything_loads(shapes: dict[str, Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"models\.m0\.tensor_parallel_size: it cannot be split over 8 GPUs: there are 4"
    ):
        advice.plan(deployment(shapes, "8b", "8b", tensor_parallel_size=8), machine.described("4x80GiB"))


def test_pinned_gpus_are_kept(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "8b", "8b", gpus=[1]), machine.described("2x80GiB"))
    assert [each.gpus for each in plan.placed.values()] == [(1,), (1,)]


def test_a_panel_that_does_not_fit_gets_hints_that_would_make_it_fit(shapes: dict[str, Path]) -> None:
    with pytest.raises(DoesNotFit, match=r"need at least .* GiB \(m0 .*, judge .*") as caught:
        advice.plan(deployment(shapes, "8b 8b 8b", "8b"), machine.described("48GiB"))
    mends = str(caught.value)
    assert (
        "do: m0, m1, m2, judge in fp8 (quantised while they load); or m0, m1, m2 in 4 bits (AWQ or GPTQ); or placement: {swap: true}: 3 turns"
        in mends
    )


@pytest.mark.parametrize(("members", "judge", "gpus"), [("8b 8b 8b", "8b", "48GiB"), ("8b 8b", "8b", "36GiB")])
def test_every_change_that_is_offered_fits(shapes: dict[str, Path], members: str, judge: str, gpus: str) -> None:
    found = machine.described(gpus)
    config = deployment(shapes, members, judge)
    footprints = {name: footprint(name, model, found) for name, model in config.local.items()}
    found_changes = changes.cheapest(config, footprints, found)
    assert 1 <= len(found_changes) <= 3
    for change in found_changes:
        fits(change.plan)


def test_a_shorter_context_is_offered_where_it_is_enough(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "8b", "8b", max_model_len=131072)
    with pytest.raises(DoesNotFit, match=r"do: kv_cache_dtype: fp8 for every model; or max_model_len: 65536 at most"):
        advice.plan(config, machine.described("64GiB"))


def test_a_swapped_panel_keeps_its_judge_awake_and_wakes_each_member_once(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "8b 8b 8b", "8b", swap=True), machine.described("48GiB"))
    fits(plan)
    assert plan.placed["judge"].turn is None
    assert sorted(name for turn in plan.turns for name in turn) == ["m0", "m1", "m2"]
    assert len(plan.turns) > 1


BY_AGREEMENT = {"strategy": "select", "select": {"by": ["agreement"]}}


@pytest.mark.parametrize("ensemble", [BY_AGREEMENT, {**BY_AGREEMENT, "judge": "m0"}, {"strategy": "vote"}])
def test_a_member_that_no_run_needs_as_a_judge_is_planned_as_a_member(shapes: dict[str, Path], ensemble: Any) -> None:
    config = without_judge(shapes, ensemble)
    assert config.judges == frozenset()
    plan = advice.plan(config, machine.described("28GiB"))
    fits(plan)
    assert all(each.turn is not None for each in plan.placed.values())
    assert [planner.tokens_per_run(config, name) for name in ("m0", "m1")] == [2, 2]


@pytest.mark.parametrize(
    "ensemble",
    [
        {"strategy": "vote", "agreement": {"by": "judge"}},
        {"strategy": "vote", "early_exit": "judge"},
        {"strategy": "vote", "judge": "m0"},
        {**BY_AGREEMENT, "gate": {"mode": "judge", "model": "m1"}},
        {**BY_AGREEMENT, "tools": True, "tools_panel": "judge"},
        {**BY_AGREEMENT, "judge": "m0", "presets": {"quick": {"strategy": "vote"}}},
    ],
)
def test_a_member_that_runs_ask_as_a_judge_is_planned_as_both(shapes: dict[str, Path], ensemble: Any) -> None:
    config = without_judge(shapes, ensemble)
    assert config.judges == {"m0"}
    with pytest.raises(DoesNotFit):
        advice.plan(config, machine.described("28GiB"))


def without_judge(shapes: dict[str, Path], ensemble: Any) -> Config:
    raw = deployment(shapes, "8b 8b", "1b", swap=True, max_model_len=2048).model_dump(mode="json", exclude_unset=True)
    raw["ensembles"]["default"] = {"panel": ["m0", "m1", "judge"], **ensemble}
    return Config.model_validate(raw)


def test_graphs_that_sleepers_give_back_are_room_for_those_awake(shapes: dict[str, Path]) -> None:
    config = deployment(shapes, "8b 8b 8b", "8b", swap=True)
    freeing = config.model_copy(
        update={"placement": config.placement.model_copy(update={"sleepers_free_graphs": True})}
    )
    usual, freed = (advice.plan(each, machine.described("48GiB")) for each in (config, freeing))
    kept = usual.footprints["m0"].asleep_bytes(1) - usual.footprints["m0"].asleep_bytes(1, keeps_graphs=False)
    assert kept == usual.footprints["m0"].graph_bytes() > 0
    caches = [sum(each.kv_cache_bytes for each in plan.on(0, 0)) for plan in (usual, freed)]
    assert caches[1] - caches[0] == pytest.approx(3 * kept, rel=0.1)


def test_a_panel_that_fits_is_not_swapped_even_if_allowed(shapes: dict[str, Path]) -> None:
    plan = advice.plan(deployment(shapes, "1b 1b", "1b", swap=True), machine.described("80GiB"))
    assert plan.turns == []


@pytest.fixture(scope="module")
def planned(shapes: dict[str, Path]) -> Callable[[str, str, Machine, bool], Plan | None]:
    def attempt(members: str, judge: str, where: Machine, swap: bool) -> Plan | None:
        config = deployment(shapes, members, judge, swap)
        footprints = {name: footprint(name, model, where) for name, model in config.local.items()}
        try:
            return planner.place(config, footprints, where)
        except DoesNotFit:
            return None

    return attempt


@given(
    members=st.lists(st.sampled_from(["1b", "8b", "70b"]), min_size=1, max_size=4),
    judge=st.sampled_from(["1b", "8b", "70b"]),
    gpus=st.sampled_from([1, 2, 3, 4, 8]),
    gib=st.integers(8, 144),
    swap=st.booleans(),
)
@settings(max_examples=settings().max_examples // 3, suppress_health_check=list(HealthCheck))
def test_no_plan_exceeds_memory_and_more_memory_never_hurts(
    planned: Callable[[str, str, Machine, bool], Plan | None],
    members: list[str],
    judge: str,
    gpus: int,
    gib: int,
    swap: bool,
) -> None:
    found = planned(" ".join(members), judge, machine.described(f"{gpus}x{gib}GiB"), swap)
    bigger = planned(" ".join(members), judge, machine.described(f"{gpus}x{gib + 8}GiB"), swap)
    if found is not None:
        fits(found)
        assert bigger is not None
        assert all(len(each.gpus) in (1, 2, 4, 8) for each in found.placed.values())


@pytest.mark.parametrize("text", ["", "x", "0x24GiB", "2x", "2x24", "99x24GiB", "2x24GiBs", "-1x24GiB"])
def test_gpus_that_cannot_be_understood_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match="Write 2x24GiB"):
        machine.described(text)


def test_gpus_of_two_sizes_can_be_described() -> None:
    found = machine.described("24GiB,2x80GiB")
    assert [device.total_bytes // GIB for device in found.devices] == [24, 80, 80]
    assert [device.index for device in found.devices] == [0, 1, 2]
