"""An audit log on a full disk: runs continue and lines wait, or runs are rejected with `required`; both are logged."""

import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest

from cappella.config import Audit
from cappella.telemetry.audit import log as audit_log
from cappella.telemetry.audit.verify import AuditBroken, verify
from support.fake_engines import FakeEngines, eventually, gateway_config, serving

ROOT = Path(__file__).parents[3]
BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}


def filled(path: Path, lines: int, *options: str) -> str:
    """The stderr of a process whose log file is limited to 1000 bytes, after one longer line and `lines` more."""
    command = [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(path), "1000", str(lines), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_lines_wait_for_the_disk_and_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logged = filled(path, 10).splitlines()
    assert verify([path]).lines == 12
    records = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [record.get("number") for record in records] == [None, *range(10), "after"]
    # Logged once, however often the write was tried.
    assert [("cannot be written" in line, "being written again" in line) for line in logged] == [
        (True, False),
        (False, True),
    ]


def test_dropped_lines_are_counted_in_their_place(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    filled(path, 27)
    records = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [record.get("number") for record in records if record["kind"] == "call"] == [None, *range(20), "after"]
    assert [record["lines"] for record in records if record["kind"] == "lost"] == [7]
    assert records[-2]["kind"] == "lost"
    found = verify([path])
    assert (found.lines, found.lost) == (23, 7)


def test_a_stop_on_a_full_disk_logs_the_loss_and_the_next_start_repairs_the_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert "4 lines could not be written and are lost" in filled(path, 3, "--stay")
    with pytest.raises(AuditBroken, match="incomplete"):
        verify([path])
    log = audit_log.AuditLog(Audit(file=path))
    log.start()
    log.close()
    assert verify([path]).repaired == 1


@pytest.mark.parametrize("required", [False, True])
async def test_on_a_full_disk_runs_continue_unless_the_log_is_required(
    fake_engines: FakeEngines,
    tmp_path: Path,
    required: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(audit_log, "RETRY_S", 0.01)
    audit = Audit(file=tmp_path / "audit.jsonl", required=required)
    config = gateway_config()
    server = config.server.model_copy(update={"audit": audit})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        aiohttp.ClientSession() as http,
    ):
        # Writing the first line, of kind `weights`, has failed.
        assert await eventually(lambda: "cannot be written" in caplog.text)
        for model, code in (("cappella/default", 200), ("ann", 200)):
            async with http.post(f"{url}/v1/chat/completions", json={**BODY, "model": model}) as reply:
                assert reply.status == (503 if required else code)
                if required:
                    assert (await reply.json())["error"]["code"] == "audit_unavailable"
    assert bool(fake_engines.servers["ann"].bodies) is not required
    assert caplog.text.count("cannot be written") == 1
