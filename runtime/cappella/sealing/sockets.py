"""Detection of sockets that lead out of a network namespace: Unix sockets to processes outside, and AF_VSOCK.

A Unix socket with a path is no matter of the network namespace, and AF_VSOCK reaches the host of a virtual machine: no
packet is seen of either.
"""

import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cappella.sealing.packets import Sent

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x1, 0x300, 2, 3
ALL_STATES, ESTABLISHED, LISTENING = 0xFFFFFFFF, 1, 10
UDIAG_SHOW_NAME, UDIAG_SHOW_PEER, UNIX_DIAG_NAME, UNIX_DIAG_PEER = 0x1, 0x4, 0, 2
HEAD_BYTES = 16
VSOCK = b"AF_VSOCK"
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """As the kernel lists it; a `peer` of 0 is not accepted yet, or closed. An abstract name begins with a NUL."""

    inode: int
    state: int
    name: str
    peer: int


class SocketWatch:
    """Counts sockets in `seen`, each once, from construction until `close`. One that is open for less than POLL_S may be missed.

    Raises OSError if the kernel does not list Unix sockets.
    """

    def __init__(self) -> None:
        self.seen: Counter[Sent] = Counter()
        self._known: set[int] = set()
        # What is open before belongs to whoever started us.
        self._look()
        self.seen.clear()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look once more, and stop."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(POLL_S):
            self._look()
        self._look()

    def _look(self) -> None:
        """Note what is new; twice, since a pair that was being made while it was listed is complete by then."""
        found = _leading_outside()
        if found.keys() - self._known:
            again = _leading_outside()
            for inode in found.keys() & again.keys() - self._known:
                self._known.add(inode)
                self.seen[again[inode]] += 1


def _leading_outside() -> dict[int, Sent]:
    """The sockets that lead out of this network namespace, by inode."""
    listed = {each.inode: each for each in unix_sockets()}
    held = dict(_held())
    own_names = {each.name for each in listed.values() if each.state == LISTENING}
    found = {inode: ("open", "AF_VSOCK") for inode, protocol in held.items() if protocol.startswith(VSOCK)}
    for each in listed.values():
        if each.state != ESTABLISHED:
            continue
        # The far end of a stream is listed with the near one, under its listener's name, but no process here holds it.
        if each.name.startswith("/") and each.name not in own_names and each.inode not in held:
            found[each.inode] = ("connect", each.name)
        elif each.peer and each.peer not in listed:
            found[each.inode] = ("connect", "a Unix socket of a process outside")
    return found


def unix_sockets() -> list[UnixSocket]:
    """The Unix sockets of this network namespace. Raises OSError."""
    show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER
    query = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, ALL_STATES, 0, show, 0, 0)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    head = struct.pack("=IHHII", HEAD_BYTES + len(query), SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.send(head + query)
        return list(_unix_sockets(sock))


def _unix_sockets(sock: socket.socket) -> Iterator[UnixSocket]:
    while True:
        for kind, message in _parts(sock.recv(1 << 20), "=IH10x", HEAD_BYTES):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                number = -struct.unpack_from("=i", message)[0]
                raise OSError(number, f"listing Unix sockets: {os.strerror(number)}")
            state, inode = struct.unpack_from("=2xBxI", message)
            attributes = dict(_parts(message[16:], "=HH", 4))
            raw = attributes.get(UNIX_DIAG_NAME, b"")
            # A path ends with a NUL; an abstract name begins with one.
            name = os.fsdecode(raw if raw.startswith(b"\0") else raw.rstrip(b"\0"))
            peer = attributes.get(UNIX_DIAG_PEER, bytes(4))
            yield UnixSocket(inode, state, name, struct.unpack("=I", peer)[0])


def _parts(data: bytes, head: str, head_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The kind and content of each message or attribute: both begin with their length and kind, aligned to four bytes."""
    at = 0
    while at + head_bytes <= len(data):
        length, kind = struct.unpack_from(head, data, at)
        yield kind, data[at + head_bytes : at + length]
        at += max(head_bytes, (length + 3) & ~3)


def _held() -> Iterator[tuple[int, bytes]]:
    """The inode and the protocol's name of each socket that processes of this network namespace have open."""
    own = os.stat("/proc/self/ns/net").st_ino
    for process in Path("/proc").glob("[0-9]*"):
        # Processes and their files come and go, and those of other users cannot be read.
        with suppress(OSError):
            if os.stat(process / "ns" / "net").st_ino == own:
                yield from _sockets_of(process)


def _sockets_of(process: Path) -> Iterator[tuple[int, bytes]]:
    for file in (process / "fd").iterdir():
        with suppress(OSError):
            target = os.readlink(file)
            if target.startswith("socket:"):
                yield int(target[len("socket:[") : -1]), os.getxattr(file, "system.sockprotoname")
