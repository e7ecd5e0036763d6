"""The reward model of `fusion.select`: a key's permission, aliases, admission, sleep and the audit log know of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Audit
from cappella.config.options import Seat
from cappella.config.weighing import Agreement, Selection
from cappella.errors import RequestError
from cappella.gateway.admission import Admission
from cappella.gateway.costs import costs
from support.fake_engines import MEMBERS, FakeEngines, gateway_config, serving
from support.scripted_engine import Script
from support.scripted_pooling import ScriptedPooling, add_pooling, pooling_config
from support.strict_gateway import with_keys

BY_REWARD: Mapping[str, Any] = {"strategy": "select", "select": {"by": ["reward"], "reward": "rm"}}


@pytest.fixture(autouse=True)
async def scorers(fake_engines: FakeEngines, tmp_path: Path) -> Mapping[str, ScriptedPooling]:
    return await add_pooling(fake_engines, tmp_path)


async def ask(url: str, reward: str = "rm", model: str = "default", **headers: str) -> tuple[int, Any]:
    fusion = {**BY_REWARD, "select": {"by": ["reward"], "reward": reward}}
    body = {"model": f"cappella/{model}", "messages": [{"role": "user", "content": "Hi"}], "fusion": fusion}
    path = f"{url}/v1/chat/completions"
    async with aiohttp.ClientSession() as http, http.post(path, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def test_a_key_needs_permission_for_a_reward_model_that_its_ensemble_has_not(
    fake_engines: FakeEngines, tmp_path: Path, scorers: Mapping[str, ScriptedPooling]
) -> None:
    keys = tmp_path / "keys.sqlite"
    store = KeyStore(keys)
    ensembles = ["cappella/default", "cappella/best"]
    few, more = store.create("few", ["run"], models=ensembles), store.create("more", ["run"], models=[*ensembles, "rm"])
    async with serving(fake_engines, with_keys(pooling_config(aliases={"scorer": "rm"}, **BY_REWARD), keys)) as url:
        for named in ("rm", "scorer"):
            status, reply = await ask(url, named, **{"x-api-key": few})
            assert (status, reply["error"]["code"]) == (403, "model_not_allowed")
        assert not scorers["rm"].bodies
        assert (await ask(url, "rm", **{"x-api-key": more}))[0] == 200
        # The operator gave this one to the ensemble.
        assert (await ask(url, "rm", "best", **{"x-api-key": few}))[0] == 200


async def test_an_alias_may_name_the_reward_model(
    fake_engines: FakeEngines, scorers: Mapping[str, ScriptedPooling]
) -> None:
    async with serving(fake_engines, pooling_config(aliases={"scorer": "rm"})) as url:
        status, reply = await ask(url, "scorer")
    assert (status, list(reply["fusion"]["evidence"])) == (200, ["reward"])
    assert scorers["rm"].bodies


async def test_the_audit_log_has_the_weights_of_the_reward_model(fake_engines: FakeEngines, tmp_path: Path) -> None:
    config = pooling_config()
    audit = Audit(file=tmp_path / "audit.jsonl")
    server = config.server.model_copy(update={"audit": audit})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        await ask(url)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    (run,) = [line for line in lines if line["kind"] == "run"]
    assert "rm" in run["weights"]


def test_a_run_needs_as_many_sequences_of_what_scores_or_embeds_as_it_takes_at_a_time() -> None:
    hosts = {name: name for name in ("ann", "bob", "cat", "judge", "rm")}
    select = Selection(by=("judge", "reward"), reward="rm")
    settings = FakeEngines().settings(strategy="select", select=select)
    assert costs(settings, hosts) == {**dict.fromkeys(hosts, 1), "rm": 3}
    assert "rm" not in costs(settings.model_copy(update={"strategy": "vote"}), hosts)
    assert "rm" not in costs(settings.model_copy(update={"select": Selection(reward="rm")}), hosts)
    scored = settings.model_copy(update={"select": Selection(), "judge": "rm"})
    assert costs(scored, hosts, judge_writes=False)["rm"] == 3
    many = tuple(Seat("ann", "ann", samples=16) for _ in range(1))
    assert costs(scored.model_copy(update={"panel": many}), hosts, judge_writes=False) == {"ann": 16, "rm": 4}
    by_embedding = Agreement(by="embedding", model="rm", alike=0.9)
    embedded = settings.model_copy(update={"select": Selection(), "agreement": by_embedding, "panel": many})
    assert costs(embedded, hosts) == {"ann": 16, "judge": 1, "rm": 16}
    assert "rm" not in costs(embedded.model_copy(update={"strategy": "synthesize"}), hosts)


def test_a_run_needs_no_sequence_of_a_judge_that_it_does_not_ask() -> None:
    hosts = {name: name for name in ("ann", "bob", "cat", "judge")}
    settings = FakeEngines().settings(strategy="select", select=Selection(by=("agreement",)), analysis="alongside")
    assert "judge" not in costs(settings, hosts)
    for asks in ({"early_exit": "judge"}, {"agreement": Agreement(by="judge")}, {"strategy": "vote"}):
        assert costs(settings.model_copy(update=asks), hosts)["judge"] == 1, asks


async def test_few_answers_are_scored_at_a_time(
    fake_engines: FakeEngines, scorers: Mapping[str, ScriptedPooling]
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, lambda body: Script(samples=tuple(f"{body['model']} {i}" for i in range(4))))
    panel = tuple(Seat(name, name, samples=4) for name in MEMBERS)
    rm, most = scorers["rm"], list[int]()

    def worth(_: str) -> float:
        most.append(fake_engines.engines["rm"].in_flight)
        return 1.0

    rm.worth = worth
    run = await fake_engines.run(strategy="select", judge="rm", panel=panel)
    assert [call.role for call in run.calls].count("score") == 12
    assert max(most) == 4


async def test_runs_have_a_share_of_a_reward_model() -> None:
    config = pooling_config()
    others = config.model_copy(update={"ensembles": gateway_config().ensembles})
    every = {"rm": config.models["rm"].max_num_seqs}
    async with Admission.of(others).slot("rm", every, direct=True):
        pass
    with pytest.raises(RequestError):
        async with Admission.of(pooling_config(judge="judge", **BY_REWARD)).slot("rm", every, direct=True):
            pass


async def test_a_run_keeps_its_reward_model_awake(fake_engines: FakeEngines) -> None:
    kept: set[str] = set()

    class Kept:
        def __enter__(self) -> None:
            kept.add("rm")

        def __exit__(self, *_: object) -> None:
            kept.discard("rm")

    def noted(text: str) -> float:
        during.append(set(kept))
        return len(text)

    during: list[set[str]] = []
    engine: Any = fake_engines.engines["rm"]
    server: Any = fake_engines.servers["rm"]
    engine._keep_awake, server.worth = Kept, noted
    run = await fake_engines.run(strategy="select", select=Selection(by=("reward",), reward="rm"))
    assert run.verdict.evidence
    assert during == [{"rm"}]
    assert not kept
