"""The audit log on the disk: whole chains verify, every kind of tampering shows, crashes are mended and told."""

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
from cappella.telemetry.audit.chain import sealed, sha256
from cappella.telemetry.audit.log import AuditLog
from cappella.telemetry.audit.verify import AuditBroken, Verified, verify

LINES = 6
Change = Callable[[list[bytes]], list[bytes]]


def written(path: Path, count: int = LINES, **settings: object) -> list[bytes]:
    """The lines of a log after `count` records more."""
    log = AuditLog(Audit.model_validate({"file": path, **settings}))
    log.start()
    for number in range(count):
        log.write({"kind": "call", "number": number})
    log.close()
    return path.read_bytes().splitlines(keepends=True)


def record(line: bytes) -> dict[str, object]:
    value: dict[str, object] = orjson.loads(line)
    return value


def edited(line: bytes, **changes: object) -> bytes:
    return orjson.dumps({**record(line), **changes}, option=orjson.OPT_SORT_KEYS) + b"\n"


def resealed(line: bytes, **changes: object) -> bytes:
    """Edited by someone who knows how the hash is made."""
    bare = {name: value for name, value in {**record(line), **changes}.items() if name != "hash"}
    return sealed(bare, int(str(bare["sequence"])), str(bare["previous"]))[0]


def cappella(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cappella", "audit", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_log_verifies_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    lines = written(path)
    found = verify([path])
    assert (found.lines, found.mended, found.lost) == (2 * LINES, 0, 0)
    assert [record(line)["sequence"] for line in lines] == list(range(1, 2 * LINES + 1))
    assert found.last_hash == record(lines[-1])["hash"]
    assert found.first_time == record(lines[0])["time"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_can_be_checked_with_what_every_machine_has(tmp_path: Path) -> None:
    line = written(tmp_path / "audit.jsonl")[2].decode().strip()
    bare = re.sub(r'"hash":"[0-9a-f]{64}",', "", line)
    assert sha256(bare.encode()) == record(line.encode())["hash"]


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (lambda ls: [*ls[:2], edited(ls[2], number=9), *ls[3:]], 3, "not as it was written"),
        (lambda ls: [*ls[:2], ls[2].replace(b":", b": ", 1), *ls[3:]], 3, "not as it was written"),
        (lambda ls: [*ls[:2], resealed(ls[2], number=9), *ls[3:]], 4, "does not follow from the line before it"),
        (lambda ls: [*ls[:2], *ls[3:]], 3, "some are missing"),
        (lambda ls: ls[1:], 1, "some are missing"),
        (lambda ls: [*ls[:2], ls[3], ls[2], *ls[4:]], 3, "some are missing"),
        (lambda ls: [*ls[:3], ls[2], *ls[3:]], 4, "out of its place"),
        (lambda ls: [*ls[:3], b"\n", *ls[3:]], 4, "not as it was written"),
        (lambda ls: [*ls[:3], b"{}\n", *ls[3:]], 4, "not as it was written"),
        (lambda ls: [*ls[:-1], edited(ls[-1], number=9)], LINES, "not as it was written"),
        (lambda ls: [*ls[:-1], ls[-1][:-9]], LINES, "breaks off"),
        (lambda ls: [*ls[:-1], ls[-1][:-1]], LINES, "breaks off"),
        (lambda ls: [], 0, "There is no line"),
    ],
    ids="edited spaced resealed deleted beheaded swapped twice blank put-in last-edited last-cut no-newline emptied".split(),
)
def test_tampering_is_found_and_the_first_line_that_does_not_fit_is_named(
    tmp_path: Path, change: Change, line: int, says: str
) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(change(written(path))))
    with pytest.raises(AuditBroken, match=says) as broken:
        verify([path])
    assert not line or str(broken.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("cut", [1, 3])
def test_what_is_cut_off_at_the_end_shows_by_a_hash_noted_before(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    noted = verify([path]).last_hash
    path.write_bytes(b"".join(lines[:-cut]))
    assert verify([path]).lines == LINES - cut
    with pytest.raises(AuditBroken, match="none of them has the hash"):
        verify([path], expect=noted)


def test_a_log_written_anew_shows_by_a_hash_noted_before(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    noted = verify([path]).last_hash
    written(path)
    assert verify([path], expect=noted).lines == 2 * LINES
    path.unlink()
    written(path, 2 * LINES)
    with pytest.raises(AuditBroken, match="none of them has the hash"):
        verify([path], expect=noted)


@pytest.mark.parametrize("left", [1, 40, -1])
def test_what_a_crash_left_of_a_line_is_mended_in_the_open(tmp_path: Path, left: int) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    torn = lines[-1][:left]
    path.write_bytes(b"".join(lines[:-1]) + torn)
    after = written(path, 1)
    found = verify([path])
    assert found.mended == 1
    assert path.read_bytes().startswith(b"".join(lines[:-1]) + torn)  # nothing was rewritten
    told = record(after[-2])
    assert told["kind"] == "mended"
    # A line that lacks its newline alone is a line.
    assert told["torn_bytes"] == (0 if left == -1 else left)
    assert found.lines == LINES - 1 + (left == -1) + 2


def test_a_crash_in_the_middle_of_mending_is_mended_too(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    path.write_bytes(b"".join(lines) + b'{"hash":"12\n{"hash":"ab')
    written(path, 1)
    assert (verify([path]).mended, verify([path]).lines) == (1, LINES + 2)


def test_what_was_mended_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(written(path)) + b'{"hash":"12')
    written(path, 1)
    path.write_bytes(path.read_bytes().replace(b'{"hash":"12\n', b'{"hash":"13\n'))
    with pytest.raises(AuditBroken, match=rf"{path}:{LINES + 1}: not what the crash left"):
        verify([path])


def test_only_zeros_after_a_power_cut_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(written(path)) + bytes(100_000))
    written(path, 1)
    assert verify([path]).mended == 1


def test_a_server_does_not_go_on_from_an_end_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    path.write_bytes(before := b"".join(lines[:-1]) + edited(lines[-1], number=9))
    with pytest.raises(ConfigError, match=r"server\.audit\.file: .* its last line is not as it was written"):
        written(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"a shopping list\n", b"a shopping list", b'{"a": 1}', b"[]", b"SQLite format 3\0"]
)
def test_nothing_is_added_to_a_file_that_is_no_log(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"server\.audit\.file: .* is no audit log"):
        written(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"{", b'{"hash":"12', bytes(9)])
def test_a_first_line_that_broke_off_is_mended(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    written(path)
    assert (verify([path]).mended, verify([path]).lines) == (1, LINES + 1)


def test_the_end_of_a_long_log_is_found_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    monkeypatch.setattr(tail, "FIRST_BLOCK_BYTES", 7)
    found = tail.read(path)
    assert (found.sequence, found.hash, found.ended) == (LINES, record(lines[-1])["hash"], True)


def test_one_process_alone_has_the_log(tmp_path: Path) -> None:
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
    assert "another process writes it" in second.stderr
    log.start()
    log.close()
    AuditLog(Audit(file=path))


def test_a_file_that_has_grown_is_put_aside_and_the_next_goes_on_from_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(4):
        written(path, 2, max_bytes=300)
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert [file.name for file in files] == [
        "audit-000000000002.jsonl", "audit-000000000004.jsonl", "audit-000000000006.jsonl", "audit.jsonl"
    ]  # fmt: skip
    assert verify(files[::-1]).lines == 8
    with pytest.raises(AuditBroken, match="some are missing"):
        verify([files[0], *files[2:]])
    before = verify(files[:2]).last_hash
    assert verify(files[2:], after=before).lines == 4
    with pytest.raises(AuditBroken, match="some are missing"):
        verify(files[2:])
    with pytest.raises(AuditBroken, match="does not follow"):
        verify(files[2:], after=verify(files[:1]).last_hash)


def test_a_full_file_is_mended_before_it_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(written(path)) + b'{"hash":"12')
    written(path, 1, max_bytes=300)
    written(path, 1, max_bytes=300)
    assert len(files := list(tmp_path.glob("audit*.jsonl"))) == 2
    assert (verify(files).mended, verify(files).lines) == (1, LINES + 3)


def test_a_log_that_was_put_aside_just_before_a_crash_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path)
    path.rename(tmp_path / f"audit-{LINES:012d}.jsonl")
    written(path)
    assert verify(list(tmp_path.glob("audit*.jsonl"))).lines == 2 * LINES


def test_the_command_tells_the_last_hash_and_exit_codes_tell_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path)
    found: Verified = verify([path])
    well = cappella(str(path), "--expect", found.last_hash)
    assert (well.returncode, well.stdout) == (
        0, f"{LINES} lines, {found.first_time} to {found.last_time}\nlast hash {found.last_hash}\n"
    )  # fmt: skip
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    broken = cappella(str(path))
    assert (broken.returncode, broken.stdout) == (1, "")
    assert f"{path}:2: this is line 3 and follows line 1: some are missing." in broken.stderr
    assert cappella(str(tmp_path / "none.jsonl")).returncode == 2
