"""The support for commands closes what it opens, however a command ends."""

import os
import socket

import pytest

from support.command_line import Command


def test_a_command_that_ends_by_itself_as_it_is_killed_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def ended(pid: int, number: int) -> None:
        theirs.send(b"0\n")
        raise ProcessLookupError

    with theirs:
        theirs.send(b"4711\n")
        command = Command(ours)
        monkeypatch.setattr(os, "kill", ended)
        command.kill()
    assert (command.pid, command.returncode) == (4711, 0)
    assert ours.fileno() == -1
