"""Another config is served with no run lost: engine processes with a scripted engine in vLLM's place."""

import asyncio
import json
from pathlib import Path

import pytest

from cappella.config import load
from cappella.errors import ConfigError, ReloadFailed
from support.fake_engines import eventually
from support.scripted_stack import Json, model, stack
from support.weights_folder import write_model


async def test_new_engines_start_first_kept_ones_stay_and_no_run_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        asking = [asyncio.create_task(found.keep_asking()) for _ in range(8)]
        before = found.engine_processes
        found.config["models"] |= {"bob": model(max_num_seqs=9), "cat": model()}
        found.config["ensembles"]["trio"] = {"panel": ["ann", "bob", "cat"], "judge": "cat", "analysis": "off"}
        told = await found.reload()
        assert told == {"started": ["bob", "cat"], "ended": ["bob"], "kept": ["ann"], "ensembles": ["default", "trio"]}
        assert found.engine_processes["ann"] == before["ann"]
        assert found.engine_processes["bob"] != before["bob"]
        assert before["bob"]
        assert await eventually(lambda: not Path(f"/proc/{before['bob']}").exists(), 30)
        _, reply = await found.ask("cappella/trio", include_intermediate_responses=True)
        assert [each["content"] for each in reply["fusion"]["responses"]] == [
            "ann of 8 speaks",
            "bob of 9 speaks",
            "cat of 8 speaks",
        ]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert len(found.replies) >= 8
        assert {(status, reply["fusion"]["status"]) for status, reply in found.replies} == {(200, "ok")}


async def test_a_new_engine_that_does_not_start_undoes_the_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        before = found.engine_processes
        found.config["models"]["bob"] = model(engine_args={"seed": 13})
        with pytest.raises(ReloadFailed, match=r"The old config is still served: bob gave up after 2 tries.*cursed"):
            await found.reload()
        assert found.engine_processes == before
        assert (await found.ask())[1]["fusion"]["status"] == "ok"
        found.config["models"]["bob"] = model()
        assert (await found.reload())["started"] == []


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        (
            "models",
            {"ann": {"weights": "weights", "max_model_len": 64, "max_num_seqz": 3}},
            "Did you mean max_num_seqs",
        ),
        ("server", {"port": 9}, "server.port: cannot change from 8000 to 9 by a reload. Restart the server."),
        ("placement", {"swap": True, "memory_bytes": "1MiB"}, "they need at least"),
        ("placement", {"mps": True}, "placement.mps: cannot change"),
        ("placement", {"sleepers_free_graphs": True}, "placement.sleepers_free_graphs: cannot change"),
    ],
)
async def test_a_config_that_cannot_be_served_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, value: Json, says: str
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        before = found.engine_processes
        found.config[section] = value
        with pytest.raises(ConfigError, match=says):
            await found.reload()
        assert found.engine_processes == before
        assert (await found.ask())[1]["fusion"]["status"] == "ok"


async def test_without_room_for_both_the_old_engine_ends_before_the_new_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        needs = sum(each.total_bytes for each in found.supervisor.plan.placed.values())
        found.config["placement"] = {"memory_bytes": needs + (900 << 20)}
        found.config["models"]["bob"] = model(max_num_seqs=9)
        found.write()
        assert not found.supervisor.compare(load.load(found.path)).fits_side_by_side
        assert (await found.reload())["started"] == ["bob"]
        assert not found.supervisor.compare(load.load(found.path)).added
        status, reply = await found.ask(include_intermediate_responses=True)
        assert (status, reply["fusion"]["responses"][1]["content"]) == (200, "bob of 9 speaks")


async def test_a_context_that_the_plan_chose_is_served_and_kept_by_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = {key: value for key, value in model().items() if key != "max_model_len"}
    async with stack(tmp_path, monkeypatch, models={"ann": planned, "bob": model(max_model_len=512)}) as found:
        served = found.supervisor.deployment.config.local
        assert (served["ann"].max_model_len, served["bob"].max_model_len) == (1024, 512)
        found.config["models"]["bob"] = model(max_num_seqs=9)
        assert (await found.reload())["started"] == ["bob"]
        assert found.supervisor.deployment.config.local["ann"].max_model_len == 1024


async def test_weights_that_have_changed_on_disk_are_loaded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        assert (await found.reload())["started"] == []
        write_model(tmp_path / "weights", tokenizer={"added_tokens": []})
        assert (await found.reload())["started"] == ["ann", "bob"]


async def test_the_audit_log_tells_of_each_run_the_weights_that_answered_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "others", tokenizer={"added_tokens": [], "version": "2"})
    async with stack(tmp_path, monkeypatch, server={"audit": {"file": "audit.jsonl"}}) as found:
        asking = [asyncio.create_task(found.keep_asking(include_intermediate_responses=True)) for _ in range(4)]
        found.config["models"]["bob"] = model(weights="others", max_num_seqs=9)
        await found.reload()
        assert await eventually(lambda: "bob of 9" in str(found.replies[-1:]))
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    before, after = [line["weights"] for line in lines if line["kind"] == "weights"]
    assert before["ann"] == before["bob"] == after["ann"] != after["bob"]
    by_run = {line["run_id"]: line["weights"] for line in lines if line["kind"] == "run"}
    answered = {"bob of 8 speaks": {"pending", before["bob"]}, "bob of 9 speaks": {"pending", after["bob"]}}
    seen = set()
    for _, reply in found.replies:
        said = reply["fusion"]["responses"][1]["content"]
        told = by_run[reply["fusion"]["run_id"]]
        assert told["bob"] in answered[said]
        seen.add((said, told["bob"]))
    assert {(said, "sha256") for said in answered} <= {(said, digest[:6]) for said, digest in seen}
