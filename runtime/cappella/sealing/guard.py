"""Refusal of network access beyond this machine, in this process and its forks. Standard library only.

A Python audit hook sees each connect, send, bind and look-up of the `socket` module: those of http.client, urllib3,
requests, httpx, asyncio's loop and aiohttp, under uvloop too. It does not see native code: libuv under uvloop
(`create_connection`, `getaddrinfo`), ZeroMQ, gloo, NCCL, gRPC, Rust, ctypes; and a look-up inside
`connect(("name", port))` only once the name is resolved. These are configured to stay on this machine (SEAL in
sealing/variables.py), and `cappella doctor --sealed` checks them in the kernel. The guard catches mistakes, not attacks:
code that wants to get round an audit hook can.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from ipaddress import ip_address
from types import FrameType
from typing import Any

RECORD = "CAPPELLA_EGRESS_RECORD"
"""The variable with the path of a file to which each refusal is appended as a line of JSON."""

ALLOWED = "CAPPELLA_EGRESS_ALLOWED"
"""The variable with the addresses that engine processes may reach, separated by commas."""

OWN_SOCKETS = "CAPPELLA_EGRESS_OWN_SOCKETS"
"""The variable with the beginnings of paths, separated by colons; if set, other Unix sockets are refused too."""

STARTUP = os.path.join(os.path.dirname(__file__), "startup")
"""A folder that, on PYTHONPATH, installs the guard in every Python process, including those that an engine spawns."""

_CHECKED_EVENTS = frozenset(
    f"socket.{name}"
    for name in "connect sendto sendmsg bind getaddrinfo gethostbyname gethostbyaddr getnameinfo".split()
)
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_MAX_PACKAGES = 5


def to_stderr(text: str) -> None:
    """Write a line to file descriptor 2, even if sys.stderr was replaced."""
    os.write(2, f"{text}\n".encode())


def install(allowed: Collection[str] = (), report: Callable[[str], None] = to_stderr) -> None:
    """Raise PermissionError, for the rest of the process, for addresses that are neither loopback nor allowed.

    `report` is called once with each kind of refusal.
    """
    guard = _Guard(allowed, os.environ.get(RECORD), report)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHECKED_EVENTS:
            guard.check(event, arguments)

    sys.addaudithook(hook)


class _Guard:
    def __init__(self, allowed: Collection[str], record: str | None, report: Callable[[str], None]) -> None:
        self._allowed = {address for text in allowed if (address := _address(text))}
        self._record = record
        own = os.environ.get(OWN_SOCKETS)
        self._own_sockets = None if own is None else tuple(own.split(os.pathsep))
        self._report = report
        self._reported: set[tuple[str, str, str]] = set()

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raises PermissionError if the event's target is not allowed."""
        what = event.removeprefix("socket.")
        to = self._outside_target(what, arguments)
        if to is None:
            return
        by = " < ".join(_packages(sys._getframe(2)))
        self._record_refusal(what, to, by)
        why = "it belongs to another process" if to.startswith("/") else "it is not on this machine"
        raise PermissionError(f"sealed: {what} {to} is refused: {why}")

    def _outside_target(self, what: str, arguments: tuple[Any, ...]) -> str | None:
        """The target of the event if it is neither on this machine nor allowed; else None."""
        if what in ("connect", "sendto", "sendmsg", "bind"):
            sock, address = arguments[:2]
            if address is None or sock.family == socket.AF_NETLINK:
                return None
            if sock.family == socket.AF_UNIX:
                return None if what == "bind" else self._outside_socket(os.fsdecode(address))
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return f"{sock.family!r} {address!r}"
            host, port = address[:2]
            return None if self._is_allowed(host, any_is_local=what != "bind") else f"{_text(host)}:{port}"
        host = arguments[0][0] if what == "getnameinfo" else arguments[0]
        # These two do not look up addresses; the others (gethostbyaddr, getnameinfo) look up the name of an address.
        is_address = what in ("getaddrinfo", "gethostbyname") and _address(_text(host)) is not None
        return None if host is None or is_address or self._is_allowed(host, any_is_local=True) else _text(host)

    def _outside_socket(self, path: str) -> str | None:
        """The path of a socket if it is not the stack's own; an abstract one does not lead out of a namespace."""
        if self._own_sockets is None or path.startswith("\0"):
            return None
        whole = os.path.realpath(path)
        return None if whole.startswith(self._own_sockets) else whole

    def _is_allowed(self, host: Any, any_is_local: bool) -> bool:
        text = _text(host)
        address = _address(text)
        if address is None:
            return text == "localhost" or (text == "" and any_is_local)
        return address.is_loopback or (address.is_unspecified and any_is_local) or address in self._allowed

    def _record_refusal(self, what: str, to: str, by: str) -> None:
        if (what, to, by) not in self._reported:
            self._reported.add((what, to, by))
            self._report(f"sealed: refused {what} {to} ({by})")
        if self._record:
            process = " ".join(getattr(sys, "argv", ["python"]))[:160]
            line = json.dumps({"what": what, "to": to, "by": by, "process": process, "pid": os.getpid()})
            with suppress(OSError), open(self._record, "a", encoding="utf-8") as file:
                file.write(line + "\n")


def _text(host: Any) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes | bytearray) else str(host)


def _address(text: str) -> Any:
    """The address, or None for a name. An IPv4-mapped IPv6 address becomes the IPv4 address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _packages(frame: FrameType | None) -> Iterator[str]:
    """The origin of a call: the innermost line of each package on the stack, without the standard library."""
    seen: set[str] = set()
    while frame and len(seen) < _MAX_PACKAGES:
        path = frame.f_code.co_filename
        outside = not path.startswith(_LIBRARY) or "-packages" in path
        if outside and not path.startswith("<frozen") and path != __file__:
            short = _relative(path)
            package = short.split(os.sep)[0]
            if package not in seen:
                seen.add(package)
                yield f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back


def _relative(path: str) -> str:
    """The path relative to its entry of sys.path."""
    roots = [entry for entry in sys.path if entry and path.startswith(entry + os.sep)]
    return path[len(max(roots, key=len)) + 1 :] if roots else path
