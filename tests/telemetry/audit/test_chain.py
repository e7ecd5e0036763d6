"""The audit log on the disk: intact chains verify, tampering is detected, torn lines are repaired and recorded."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from cappella.config import Audit
from cappella.errors import ConfigError
from cappella.telemetry.audit import tail
from cappella.telemetry.audit.chain import encode, sha256
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.verify import AuditBroken, Verified, verify
from support.command_line import cappella

LINES = 6
Change = Callable[[list[bytes]], list[bytes]]


def written(path: Path, count: int = LINES, **settings: object) -> list[bytes]:
    """The lines of a log after `count` more records."""
    log = AuditLog(Audit.model_validate({"file": path, **settings}))
    log.start()
    for number in range(count):
        log.write({"kind": "call", "number": number})
    log.close()
    return path.read_bytes().splitlines(keepends=True)


def forget(path: Path) -> None:
    """Remove the note of the last line, as a power cut may leave it."""
    path.with_name(f"{path.name}.lock").unlink()


def record(line: bytes) -> dict[str, object]:
    value: dict[str, object] = orjson.loads(line)
    return value


def edited(line: bytes, **changes: object) -> bytes:
    return orjson.dumps({**record(line), **changes}, option=orjson.OPT_SORT_KEYS) + b"\n"


def rehashed(line: bytes, **changes: object) -> bytes:
    """The edited line with a correct hash."""
    bare = {name: value for name, value in {**record(line), **changes}.items() if name != "hash"}
    return encode(bare, int(str(bare["sequence"])), str(bare["previous"]))[0]


def test_a_log_verifies_and_continues_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    lines = written(path)
    found = verify([path])
    assert (found.lines, found.repaired, found.lost) == (2 * LINES, 0, 0)
    assert [record(line)["sequence"] for line in lines] == list(range(1, 2 * LINES + 1))
    assert found.last_hash == record(lines[-1])["hash"]
    assert found.first_time == record(lines[0])["time"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_can_be_checked_with_sha256sum(tmp_path: Path) -> None:
    line = written(tmp_path / "audit.jsonl")[2].decode().strip()
    bare = re.sub(r'"hash":"[0-9a-f]{64}",', "", line)
    assert sha256(bare.encode()) == record(line.encode())["hash"]


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (lambda ls: [*ls[:2], edited(ls[2], number=9), *ls[3:]], 3, "changed after it was written"),
        (lambda ls: [*ls[:2], ls[2].replace(b":", b": ", 1), *ls[3:]], 3, "changed after it was written"),
        (lambda ls: [*ls[:2], rehashed(ls[2], number=9), *ls[3:]], 4, "previous hash is not that of the line before"),
        (lambda ls: [*ls[:2], *ls[3:]], 3, "lines are missing"),
        (lambda ls: ls[1:], 1, "lines are missing"),
        (lambda ls: [*ls[:2], ls[3], ls[2], *ls[4:]], 3, "lines are missing"),
        (lambda ls: [*ls[:3], ls[2], *ls[3:]], 4, "lines are out of order"),
        (lambda ls: [*ls[:3], b"\n", *ls[3:]], 4, "changed after it was written"),
        (lambda ls: [*ls[:3], b"{}\n", *ls[3:]], 4, "changed after it was written"),
        (lambda ls: [*ls[:-1], edited(ls[-1], number=9)], LINES, "changed after it was written"),
        (lambda ls: [*ls[:-1], ls[-1][:-9]], LINES, "incomplete"),
        (lambda ls: [*ls[:-1], ls[-1][:-1]], LINES, "incomplete"),
        (lambda ls: [], 0, "contain no lines"),
    ],
    ids="edited spaced rehashed deleted beheaded swapped twice blank put-in last-edited last-cut no-newline emptied".split(),
)
def test_tampering_is_detected_and_the_first_broken_line_is_named(
    tmp_path: Path, change: Change, line: int, message: str
) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(change(written(path))))
    with pytest.raises(AuditBroken, match=message) as broken:
        verify([path])
    assert not line or str(broken.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("cut", [1, 3])
def test_a_cut_off_end_is_detected_by_an_earlier_hash(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    noted = verify([path]).last_hash
    path.write_bytes(b"".join(lines[:-cut]))
    assert verify([path]).lines == LINES - cut
    with pytest.raises(AuditBroken, match="none has the hash"):
        verify([path], expect=noted)


def test_a_rewritten_log_is_detected_by_an_earlier_hash(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    noted = verify([path]).last_hash
    written(path)
    assert verify([path], expect=noted).lines == 2 * LINES
    path.unlink()
    forget(path)
    written(path, 2 * LINES)
    with pytest.raises(AuditBroken, match="none has the hash"):
        verify([path], expect=noted)


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_torn_line_is_repaired_by_a_line_that_describes_it(tmp_path: Path, left: int) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    torn = lines[-1][:left]
    path.write_bytes(b"".join(lines[:-1]) + torn)
    forget(path)
    after = written(path, 1)
    found = verify([path])
    assert found.repaired == 1
    assert path.read_bytes().startswith(b"".join(lines[:-1]) + torn)  # nothing was rewritten
    repair = record(after[-2])
    assert repair["kind"] == "mended"
    # A line that lacks only its newline is intact.
    assert repair["torn_bytes"] == (0 if left == -1 else left)
    assert found.lines == LINES - 1 + (left == -1) + 2


def test_a_crash_during_a_repair_is_repaired_too(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    path.write_bytes(b"".join(lines) + b'{"hash":"12\n{"hash":"ab')
    written(path, 1)
    assert (verify([path]).repaired, verify([path]).lines) == (1, LINES + 2)


def test_torn_bytes_cannot_be_changed_after_the_repair(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(written(path)) + b'{"hash":"12')
    written(path, 1)
    path.write_bytes(path.read_bytes().replace(b'{"hash":"12\n', b'{"hash":"13\n'))
    with pytest.raises(AuditBroken, match=rf"{path}:{LINES + 1}: the torn bytes are not"):
        verify([path])


def test_zeros_after_a_power_cut_are_repaired(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(written(path)) + bytes(100_000))
    written(path, 1)
    assert verify([path]).repaired == 1


def test_a_changed_last_line_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    path.write_bytes(before := b"".join(lines[:-1]) + edited(lines[-1], number=9))
    with pytest.raises(ConfigError, match=r"server\.audit\.file: .* its last line was changed after it was written"):
        written(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"a shopping list\n", b"a shopping list", b'{"a": 1}', b"[]", b"SQLite format 3\0"]
)
def test_another_kind_of_file_is_left_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"server\.audit\.file: .* is not an audit log"):
        written(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"{", b'{"hash":"12', bytes(9)])
def test_a_torn_first_line_is_repaired(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    written(path)
    assert (verify([path]).repaired, verify([path]).lines) == (1, LINES + 1)


def test_the_tail_of_a_long_log_is_read_in_blocks_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    monkeypatch.setattr(tail, "FIRST_BLOCK_BYTES", 7)
    found = tail.read(path)
    assert (found.sequence, found.hash, found.ends_with_newline) == (LINES, record(lines[-1])["hash"], True)


def test_only_one_process_can_open_the_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(Audit(file=path))
    code = (
        "import sys, pathlib; from cappella.telemetry.audit.log import AuditLog; from cappella.config import Audit;"
        "AuditLog(Audit(file=pathlib.Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "runtime")}
    second = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True, check=False
    )
    assert "another process writes to it" in second.stderr
    log.start()
    log.close()
    AuditLog(Audit(file=path))


def test_a_file_that_reaches_max_bytes_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(4):
        written(path, 2, max_bytes=300)
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert [file.name for file in files] == [
        "audit-000000000002.jsonl", "audit-000000000004.jsonl", "audit-000000000006.jsonl", "audit.jsonl"
    ]  # fmt: skip
    assert verify(files[::-1]).lines == 8
    with pytest.raises(AuditBroken, match="lines are missing"):
        verify([files[0], *files[2:]])
    before = verify(files[:2]).last_hash
    assert verify(files[2:], after=before).lines == 4
    with pytest.raises(AuditBroken, match="lines are missing"):
        verify(files[2:])
    with pytest.raises(AuditBroken, match="previous hash"):
        verify(files[2:], after=verify(files[:1]).last_hash)


def test_a_full_file_is_repaired_before_it_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(written(path)) + b'{"hash":"12')
    written(path, 1, max_bytes=300)
    written(path, 1, max_bytes=300)
    assert len(files := list(tmp_path.glob("audit*.jsonl"))) == 2
    assert (verify(files).repaired, verify(files).lines) == (1, LINES + 3)


def test_the_chain_continues_from_a_file_rotated_just_before_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    path.rename(tmp_path / f"audit-{LINES:012d}.jsonl")
    written(path)
    assert verify(list(tmp_path.glob("audit*.jsonl"))).lines == 2 * LINES


def test_the_command_prints_the_last_hash_and_fails_with_exit_codes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    found: Verified = verify([path])
    intact = cappella("audit", "verify", str(path), "--expect", found.last_hash)
    assert (intact.returncode, intact.stdout) == (
        0, f"{LINES} lines, {found.first_time} to {found.last_time}\nlast hash {found.last_hash}\n"
    )  # fmt: skip
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    broken = cappella("audit", "verify", str(path))
    assert (broken.returncode, broken.stdout) == (1, "")
    assert f"{path}:2: line 3 follows line 1: lines are missing." in broken.stderr
    assert cappella("audit", "verify", str(tmp_path / "none.jsonl")).returncode == 2
