"""`cappella logs` finds, ends and follows the log of an engine."""

import os
import pty
from pathlib import Path

import pytest

from cappella.engines import log_rotation
from support.command_line import cappella, start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The logs of the server on port 8000, with two launches of ann."""
    folder = tmp_path / "cappella" / "logs-8000"
    folder.mkdir(parents=True)
    (folder / "ann.log").write_text("".join(f"line {number}\n" for number in range(300)))
    (folder / "ann.previous.log").write_text("it crashed\n")
    (folder / "bob.log").write_text("bob\n")
    return folder


def test_the_end_of_a_log_is_shown_by_the_name_of_its_model(folder: Path, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    assert cappella("logs", **state).stdout == "ann\nbob\n"
    assert cappella("logs", "ann", **state).stdout.splitlines() == [f"line {number}" for number in range(200, 300)]
    assert cappella("logs", "ann", "-n", "1", **state).stdout == "line 299\n"
    assert cappella("logs", "ann", "--earlier", "1", **state).stdout == "it crashed\n"
    assert cappella("logs", "bob", "--log-dir", folder).stdout == "bob\n"


def test_a_log_that_is_not_there_is_an_error_that_names_those_that_are(folder: Path, tmp_path: Path) -> None:
    wrong, elsewhere = (cappella("logs", "an", *more, XDG_STATE_HOME=str(tmp_path)) for more in ([], ["--port", "1"]))
    assert (wrong.returncode, elsewhere.returncode) == (2, 2)
    assert "There are logs of ann, bob" in wrong.stderr
    assert "Name the server's --port" in elsewhere.stderr


def test_a_followed_log_goes_on_over_a_restart_and_a_cut(folder: Path) -> None:
    ours, theirs = pty.openpty()
    log = folder / "bob.log"
    command = start(["logs", "bob", "-f", "--log-dir", str(folder)], [theirs] * 3)
    try:
        with open(ours, "rb", closefd=False) as shown:
            assert shown.readline() == b"bob\r\n"
            with log.open("a") as file:
                file.write("more\n")
            assert shown.readline() == b"more\r\n"
            with log.open("a") as file:
                file.write("why it ended\n")
            log_rotation.rotate(log)
            log.write_text(f"a new launch\n{'x' * 100}\nlast\n")
            assert shown.readline() == b"why it ended\r\n"
            assert [shown.readline() for _ in range(3)][::2] == [b"a new launch\r\n", b"last\r\n"]
            log.write_text("older\nlast\ncut\n")
            assert shown.readline() == b"(the older half of the log was cut off)\r\n"
            assert shown.readline() == b"cut\r\n"
            log.write_text("new\n")
            assert shown.readline() == b"(the older half of the log was cut off)\r\n"
            assert shown.readline() == b"new\r\n"
    finally:
        command.kill()
        os.close(theirs)
        os.close(ours)
