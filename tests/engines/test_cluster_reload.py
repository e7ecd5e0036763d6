"""A reload of a deployment on a cluster: what needs no other place is changed, and models are refused."""

from pathlib import Path

import pytest

from cappella.config import Config
from cappella.engines import backends, deployment
from cappella.engines.deployment import Deployment
from cappella.engines.sanitize import Sanitizer
from cappella.engines.status import EngineStatus
from cappella.errors import ConfigError
from cappella.placement import advice, cluster, contexts, machine
from cappella.placement.planner import Plan
from support.weights_folder import write_model


def config_of(weights: Path, **fields: object) -> Config:
    model = {"weights": str(weights), "max_model_len": 64, "kv_cache_bytes": "1MiB"}
    ensembles = {"default": {"panel": ["ann"], "judge": "ann"}}
    whole = {"models": {"ann": model}, "placement": {"ray": {}}, "ensembles": ensembles, **fields}
    return Config.model_validate(whole)


def deployed(config: Config) -> Deployment:
    on = cluster.described("a:24GiB,b:24GiB")
    plan = advice.plan(config, on)
    clients = backends.local_engines(
        backends.NOWHERE, ["ann"], EngineStatus("ann"), Sanitizer(), config.local["ann"].capabilities, None
    )
    served = contexts.applied(config, plan)
    return Deployment(served, config, on, plan, deployment.fingerprints(config), dict(clients), {}, {})


def test_another_ensemble_keeps_each_engine_where_it_is(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "w")
    old = deployed(config_of(weights))
    new = config_of(weights, ensembles={"other": {"panel": ["ann", "ann"], "judge": "ann"}})
    change = deployment.plan_change(old, new, old.machine)
    assert change.kept == {"ann"}
    assert not change.added
    assert not change.removed
    assert change.plan.placed["ann"] == old.plan.placed["ann"]


def test_another_model_needs_a_restart(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "w")
    old = deployed(config_of(weights))
    models = {name: {"weights": str(weights), "max_model_len": 64, "kv_cache_bytes": "1MiB"} for name in ("ann", "bob")}
    with pytest.raises(ConfigError, match="on a cluster cannot be changed"):
        deployment.plan_change(old, config_of(weights, models=models), old.machine)


def test_a_failed_engine_is_tried_again_and_blocks_no_reload(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "w")
    old = deployed(config_of(weights))
    old.engines["ann"].status.state = "failed"
    new = config_of(weights, ensembles={"other": {"panel": ["ann", "ann"], "judge": "ann"}})
    assert deployment.plan_change(old, new, old.machine).kept == {"ann"}


def test_a_model_that_is_added_to_attached_ones_does_not_start_on_the_gateways_machine(tmp_path: Path) -> None:
    weights = write_model(tmp_path / "w")
    attached = {"bob": {"url": "http://127.0.0.1:9/v1", "max_model_len": 64}}
    ensembles = {"default": {"panel": ["bob"], "judge": "bob"}}
    written = config_of(weights, models=attached, ensembles=ensembles)
    here = machine.own_memory()
    bob = {"bob": backends.remote_engines("bob", written.remote["bob"])["bob"]}
    old = Deployment(written, written, here, Plan(here, {}), deployment.fingerprints(written), dict(bob), {}, {})
    local = {"ann": {"weights": str(weights), "max_model_len": 64, "kv_cache_bytes": "1MiB"}}
    with pytest.raises(ConfigError, match="on a cluster cannot be changed"):
        deployment.plan_change(old, config_of(weights, models=attached | local, ensembles=ensembles), here)
