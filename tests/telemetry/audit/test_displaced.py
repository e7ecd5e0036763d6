"""An audit log whose file is removed, moved or replaced: required, it rejects runs; else it goes on and says so."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import orjson
import pytest

from cappella.config import Audit
from cappella.errors import AuditUnavailable
from cappella.telemetry.audit import log as audit_log
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.verify import AuditBroken, verify
from support.command_line import cappella
from support.fake_engines import FakeEngines, eventually, gateway_config, serving

BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.jsonl"))


def replace(path: Path) -> None:
    """As an editor does: a changed copy takes the file's name."""
    shutil.copy(path, path.with_name("moved.jsonl"))
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def create_anew(path: Path) -> None:
    """As logrotate does."""
    move(path)
    path.touch()


def opened(path: Path, **settings: object) -> AuditLog:
    log = AuditLog(Audit.model_validate({"file": path, **settings}))
    log.start()
    return log


def until(reached: Callable[[], bool]) -> None:
    while not reached():
        time.sleep(0.005)


def kinds(path: Path) -> list[str]:
    return [orjson.loads(line)["kind"] for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def _quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "RETRY_S", 0.01)


@pytest.mark.parametrize("change", [remove, move, replace, create_anew])
def test_a_displaced_log_goes_on_from_its_last_hash_and_says_so(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "audit.jsonl"
    log = opened(path)
    log.write({"kind": "call"})
    until(lambda: kinds(path) == ["call"])
    change(path)
    # Noticed without any further line.
    until(lambda: kinds(path)[-1:] == ["continued"])
    log.write({"kind": "call"})
    log.close()
    assert kinds(path)[-2:] == ["continued", "call"]
    assert path.stat().st_mode & 0o777 in (0o600, 0o644)
    parts = [path] if change in (remove, replace) else [path, path.with_name("moved.jsonl")]
    if change is remove:
        with pytest.raises(AuditBroken, match=r"lines are missing; here the file before was removed"):
            verify(parts)
    else:
        found = verify(parts)
        assert (found.lines, found.continued) == (3, 1)


@pytest.mark.parametrize("change", [remove, move])
def test_a_log_displaced_between_two_servers_is_told_by_verify(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        log = opened(path)
        log.write({"kind": "call"})
        log.close()
    last = verify([path]).last_hash
    change(path)
    opened(path).close()
    log = opened(path)
    log.write({"kind": "call"})
    log.close()
    done = cappella("audit", "verify", path)
    assert done.returncode == 1
    assert "removed" in done.stderr
    assert verify([path], after=last).continued == 1
    if change is move:
        told = cappella("audit", "verify", path, path.with_name("moved.jsonl"))
        assert told.returncode == 0
        assert "1 times the file was removed" in told.stdout


def test_a_log_that_was_cut_between_two_servers_is_told_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = opened(path)
    for _ in range(3):
        log.write({"kind": "call"})
    log.close()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    log = opened(path)
    log.write({"kind": "call"})
    log.close()
    with pytest.raises(AuditBroken, match=r":3: line 4 follows line 2: lines are missing; here"):
        verify([path])


def test_another_kind_of_file_in_its_place_is_left_unchanged_and_lines_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    log = opened(path)
    log.write({"kind": "call"})
    until(lambda: kinds(path) == ["call"])
    move(path)
    path.write_text("a shopping list\n")
    log.write({"kind": "call"})
    until(lambda: "another file lies in its place" in caplog.text)
    assert path.read_text() == "a shopping list\n"
    path.unlink()
    until(lambda: "continued" in kinds(path))
    log.close()
    assert sorted(kinds(path)) == ["call", "continued"]
    assert verify([path, path.with_name("moved.jsonl")]).lines == 3


def test_a_required_log_is_refused_until_its_file_is_back(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = opened(path, required=True)
    log.write({"kind": "call"})
    until(lambda: kinds(path) == ["call"])

    def is_refused() -> bool:
        try:
            log.require_available()
        except AuditUnavailable:
            return True
        return False

    move(path)
    until(is_refused)
    log.write({"kind": "call"})
    assert not path.exists()
    path.with_name("moved.jsonl").rename(path)
    until(lambda: not is_refused())
    move(path)
    until(is_refused)
    log.close()
    # The last lines of a stop are not lost: they are in a new file that says what happened.
    assert verify([path, path.with_name("moved.jsonl")]).lines >= 2


async def test_with_a_required_log_removed_runs_are_rejected(fake_engines: FakeEngines, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    config = gateway_config()
    server = config.server.model_copy(update={"audit": Audit(file=path, required=True)})
    async with (
        serving(fake_engines, config.model_copy(update={"server": server})) as url,
        aiohttp.ClientSession(url) as http,
    ):

        async def status() -> int:
            async with http.post("/v1/chat/completions", json=BODY) as reply:
                return reply.status

        assert await status() == 200
        await eventually(lambda: "run" in kinds(path))
        path.unlink()
        while await status() != 503:
            await asyncio.sleep(0.005)
