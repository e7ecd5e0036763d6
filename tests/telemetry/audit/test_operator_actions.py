"""Audit lines of operators' actions: who did what to which engine, and how it ended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from cappella.auth.keys import KeyStore
from cappella.errors import CappellaError
from cappella.telemetry.audit.verify import verify
from support.fake_engines import eventually
from support.scripted_stack import Stack, model, stack

WHO = ("key", "by", "action", "engine", "status", "state")


def actions(folder: Path) -> list[Mapping[str, Any]]:
    records = [orjson.loads(line) for line in (folder / "audit.jsonl").read_bytes().splitlines()]
    return [record for record in records if record["kind"] == "action"]


async def post(found: Stack, path: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(found.url + path) as reply:
        return reply.status


async def test_actions_on_engines_are_recorded_with_key_and_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    admin, user = keys.create("root", ["admin"]), keys.create("ann", ["run"])
    server = {"keys": str(tmp_path / "keys.sqlite"), "audit": {"file": str(tmp_path / "audit.jsonl")}}
    async with stack(tmp_path, monkeypatch, server=server) as found:
        assert await post(found, "/api/engines/bob/sleep", admin) == 202
        assert await eventually(lambda: found.supervisor.actions("bob") == ("wake",))
        assert await post(found, "/api/engines/bob/wake", admin) == 202
        assert await eventually(lambda: found.supervisor.statuses["bob"].state == "ready")
        assert await post(found, "/api/engines/bob/wake", admin) == 409
        assert await post(found, "/api/engines/cat/restart", admin) == 404
        assert await post(found, "/api/engines/bob/restart", user) == 403
        assert await post(found, "/api/engines/bob/restart", admin) == 202
    who = (admin.split("_")[1], "request")
    assert [tuple(line.get(name) for name in WHO) for line in actions(tmp_path)] == [
        (*who, "sleep", "bob", "done", "stopped"),
        (*who, "wake", "bob", "done", "restarting"),
        (*who, "wake", "bob", "ActionRefused", None),
        (*who, "restart", "cat", "UnknownEngine", None),
        (*who, "restart", "bob", "done", "restarting"),
    ]
    assert all(line["time"] for line in actions(tmp_path))
    assert verify([tmp_path / "audit.jsonl"]).lines >= 5


async def test_a_reload_is_recorded_with_what_it_changed_and_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {"audit": {"file": str(tmp_path / "audit.jsonl")}}
    async with stack(tmp_path, monkeypatch, server=server) as found:
        found.config["models"]["cat"] = model()
        found.config["ensembles"]["default"]["quorum"] = 1
        found.config["server"]["drain_s"] = 7
        found.write()
        assert await post(found, "/api/reload", "") == 200
        found.config["models"]["cat"]["max_model_len"] = "many"
        # As by a signal: there is no request.
        with pytest.raises(CappellaError):
            await found.reload()
    by_request, by_signal = actions(tmp_path)
    assert by_request["changed"] == ["models.cat", "ensembles.default", "server.drain_s"]
    assert (by_request["by"], by_request["status"], by_request["started"], by_request["ended"]) == (
        "request",
        "done",
        ["cat"],
        [],
    )
    assert (by_signal["by"], by_signal["status"], by_signal["changed"]) == ("signal", "ConfigError", [])
