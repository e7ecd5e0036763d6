"""A reload beside replicas that stay: they keep the memory that was planned for them, whatever they hold at the moment."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config
from cappella.engines import backends, deployment
from cappella.engines.base import EngineServer, SingleServer
from cappella.engines.deployment import Deployment
from cappella.engines.replicas.replica import Replica
from cappella.engines.replicas.replicas import Replicas
from cappella.engines.sanitize import Sanitizer
from cappella.engines.status import EngineStatus
from cappella.errors import DoesNotFit
from cappella.placement import advice, contexts, machine
from cappella.placement.machine import Machine
from support.weights_folder import TINY, write_model

LLAMA_8B = {**TINY, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}  # fmt: skip


def config_of(weights: Path, *more: str, **placement: Any) -> Config:
    model = {"weights": str(weights), "max_model_len": 8192, "kv_cache_bytes": "1200MiB"}
    models = {"ann": {**model, "replicas": 2}, **dict.fromkeys(more, model)}
    ensembles = {"default": {"panel": ["ann"], "judge": "ann"}}
    return Config.model_validate({"models": models, "ensembles": ensembles, "placement": placement})


def deployed(config: Config, on: Machine) -> Deployment:
    plan, able = advice.plan(config, on), config.local["ann"].capabilities
    replicas = []
    for name in config.servers_of(["ann"]):
        client: SingleServer = backends.local_engines(
            backends.NOWHERE, [name], EngineStatus(name), Sanitizer(), able, None
        )[name]
        replicas.append(Replica(name, client, 4))
    engines: dict[str, EngineServer] = {"ann": Replicas("ann", able, replicas)}
    served = contexts.applied(config, plan)
    return Deployment(served, config, on, plan, deployment.fingerprints(config), engines, {}, {})


def holding(old: Deployment, names: Collection[str]) -> Machine:
    """The machine while these servers alone hold their memory."""
    held = dict.fromkeys((device.index for device in old.machine.devices), 0)
    for name in names:
        for gpu in old.plan.placed[name].gpus:
            held[gpu] += old.plan.placed[name].total_bytes
    devices = [replace(each, free_bytes=each.free_bytes - held[each.index]) for each in old.machine.devices]
    return replace(old.machine, devices=devices)


@pytest.mark.parametrize("awake", [["ann-1", "ann-2"], ["ann-1"], []])
def test_the_memory_of_a_replica_that_sleeps_or_failed_is_not_given_away(tmp_path: Path, awake: list[str]) -> None:
    weights = write_model(tmp_path / "w", LLAMA_8B)
    old = deployed(config_of(weights), machine.described("2x24GiB"))
    with pytest.raises(DoesNotFit):
        deployment.plan_change(old, config_of(weights, "bob"), holding(old, awake))
    beside = deployed(config_of(weights), machine.described("3x24GiB"))
    change = deployment.plan_change(beside, config_of(weights, "bob"), holding(beside, awake))
    taken = {gpu for name in ("ann-1", "ann-2") for gpu in beside.plan.placed[name].gpus}
    assert not taken & set(change.plan.placed["bob"].gpus)


def test_replicas_that_stay_count_against_the_limit_of_memory(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "w", LLAMA_8B)
    old = deployed(config_of(weights, memory_bytes="48GiB"), machine.described("80GiB"))
    with pytest.raises(DoesNotFit):
        deployment.plan_change(old, config_of(weights, "bob", memory_bytes="48GiB"), holding(old, ["ann-1", "ann-2"]))
