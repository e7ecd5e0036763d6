"""Another config is served with no run lost: engine processes with a scripted engine in vLLM's place."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

from cappella import reading
from cappella.app import create_app
from cappella.engines import process, supervisor
from cappella.engines.lifecycle import Backoff
from cappella.engines.supervisor import Supervisor
from cappella.errors import ConfigError, ReloadFailed
from choir import eventually
from deployment import ROOT
from engine_stub import NAME, environment, fork_server
from weights_folder import write_model

Json = dict[str, Any]

STUB = f"""
import asyncio, sys
from pathlib import Path
sys.path.append({str(ROOT / "tests")!r})
from scripted_engine import Script, ScriptedEngine

async def serve(folder, name):
    await ScriptedEngine("engine", lambda body: Script((name, " speaks"), pause_s=0.05)).start(folder)
    await asyncio.sleep(3600)

def main():
    said = sys.argv
    if "--crash" in said:
        sys.exit("ValueError: the weights are cursed")
    name = said[said.index("--served-model-name") + 1] + " of " + said[said.index("--max-num-seqs") + 1]
    asyncio.run(serve(Path(said[said.index("--uds") + 1]).parent, name))
"""


@dataclass
class Stack:
    """A gateway over real processes, and the config that it was read from."""

    path: Path
    config: Json
    supervisor: Supervisor
    app: Any = None
    url: str = ""
    replies: list[tuple[int, Json]] = field(default_factory=list)

    def write(self) -> None:
        self.path.write_text(json.dumps(self.config))

    async def reload(self) -> Json:
        self.write()
        told: Json = await self.app.state.generations.reload()
        return told

    async def ask(self, model: str = "cappella/default", **fusion: Any) -> tuple[int, Json]:
        body: Json = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        body |= {"fusion": fusion} if fusion else {}
        async with aiohttp.ClientSession() as http, http.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            return reply.status, await reply.json()

    async def keep_asking(self, **fusion: Any) -> None:
        while True:
            self.replies.append(await self.ask(**fusion))

    @property
    def keepers(self) -> dict[str, int | None]:
        """The process of each engine."""
        lifecycles = self.supervisor.lifecycles.items()
        return {name: each._process.keeper_pid if each._process else None for name, each in lifecycles}


def model(**more: Any) -> Json:
    return {"weights": "weights", "max_model_len": 64, "kv_cache_bytes": "1MiB", "max_num_seqs": 8, **more}


@asynccontextmanager
async def stack(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Json) -> AsyncIterator[Stack]:
    write_model(folder / "weights", tokenizer={"added_tokens": []})
    fork_server(folder / "modules", STUB)
    monkeypatch.setattr(supervisor, "LAUNCHER", NAME)
    monkeypatch.setattr(process, "environment", lambda *_: environment(folder / "modules"))
    config: Json = {
        "models": {"ann": model(), "bob": model()},
        "ensembles": {"default": {"panel": ["ann", "bob"], "judge": "ann", "analysis": "off"}},
        **more,
    }
    path = folder / "c.yaml"
    path.write_text(json.dumps(config))
    first = reading.load(path)
    found = Stack(path, config, Supervisor(first, folder / "logs", Backoff((0.05,))))
    found.app = create_app(first, found.supervisor, lambda: reading.load(path))
    server = uvicorn.Server(uvicorn.Config(found.app, port=0, log_level="error", lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve())
    assert await eventually(lambda: server.started, 10)
    found.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        assert await eventually(lambda: all(each.takes_calls for each in found.supervisor.statuses.values()), 30)
        yield found
    finally:
        server.should_exit = True
        await serving


async def test_new_engines_come_first_the_others_stay_and_no_run_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        asking = [asyncio.create_task(found.keep_asking()) for _ in range(8)]
        before = found.keepers
        found.config["models"] |= {"bob": model(max_num_seqs=9), "cat": model()}
        found.config["ensembles"]["trio"] = {"panel": ["ann", "bob", "cat"], "judge": "cat", "analysis": "off"}
        told = await found.reload()
        assert told == {"started": ["bob", "cat"], "ended": ["bob"], "kept": ["ann"], "ensembles": ["default", "trio"]}
        assert found.keepers["ann"] == before["ann"]
        assert found.keepers["bob"] != before["bob"]
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


async def test_an_engine_that_does_not_start_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        before = found.keepers
        found.config["models"]["bob"] = model(engine_args={"crash": True})
        with pytest.raises(ReloadFailed, match=r"All is as it was before: bob gave up after 2 tries.*cursed"):
            await found.reload()
        assert found.keepers == before
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
        ("server", {"port": 9}, "server.port: cannot change from 8000 to 9 under way. Restart the server."),
        ("placement", {"swap": True, "memory_bytes": "1MiB"}, "they need at least"),
    ],
)
async def test_a_config_that_cannot_be_served_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, value: Json, says: str
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        before = found.keepers
        found.config[section] = value
        with pytest.raises(ConfigError, match=says):
            await found.reload()
        assert found.keepers == before
        assert (await found.ask())[1]["fusion"]["status"] == "ok"


async def test_without_room_for_both_the_old_engine_ends_before_the_new_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path, monkeypatch) as found:
        needs = sum(each.total_bytes for each in found.supervisor.plan.placed.values())
        found.config["placement"] = {"memory_bytes": needs + (900 << 20)}
        found.config["models"]["bob"] = model(max_num_seqs=9)
        found.write()
        assert not found.supervisor.compare(reading.load(found.path)).together
        assert (await found.reload())["started"] == ["bob"]
        assert not found.supervisor.compare(reading.load(found.path)).comes
        status, reply = await found.ask(include_intermediate_responses=True)
        assert (status, reply["fusion"]["responses"][1]["content"]) == (200, "bob of 9 speaks")


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
        assert await eventually(lambda: "bob of 9" in str(found.replies[-1]))
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
