"""Refuses what would reach beyond this machine, in this process and in those forked from it. Standard library only.

Python tells an audit hook of each connect, send, bind and look-up of its own `socket` module. So http.client, urllib3,
requests, httpx, asyncio's loop and aiohttp's connects are seen, under uvloop too. It is told nothing of native code:
what uvloop gives to libuv (`create_connection`, `getaddrinfo`), ZeroMQ, gloo, NCCL, gRPC, Rust, ctypes; and of a look-up
inside `connect(("name", port))` only when the name is known. None of those is asked to go anywhere (see SEAL in
engines/process/process.py), and `cappella doctor --sealed` watches them from the kernel. This is for mistakes: code that means
to get round an audit hook can.
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
"""Names a file: each refusal becomes a line of JSON in it."""

ALLOWED = "CAPPELLA_EGRESS_ALLOWED"
"""Lists addresses, with commas, that engine processes may reach."""

STARTUP = os.path.join(os.path.dirname(__file__), "startup")
"""On PYTHONPATH this folder has every Python process begin with a guard, those that an engine spawns too."""

_JUDGED = frozenset(
    f"socket.{name}"
    for name in "connect sendto sendmsg bind getaddrinfo gethostbyname gethostbyaddr getnameinfo".split()
)
_INSIDE = (socket.AF_UNIX, socket.AF_NETLINK)
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_MAX_PACKAGES = 5


def to_stderr(text: str) -> None:
    """A line, whatever became of Python's own stream."""
    os.write(2, f"{text}\n".encode())


def install(allowed: Collection[str] = (), tell: Callable[[str], None] = to_stderr) -> None:
    """From now on and for as long as the process lives: PermissionError for what is not loopback and not allowed.

    `tell` is told of each kind of refusal once.
    """
    guard = _Guard(allowed, os.environ.get(RECORD), tell)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _JUDGED:
            guard.judge(event, arguments)

    sys.addaudithook(hook)


class _Guard:
    def __init__(self, allowed: Collection[str], record: str | None, tell: Callable[[str], None]) -> None:
        self._allowed = {address for text in allowed if (address := _address(text))}
        self._record = record
        self._say = tell
        self._told: set[tuple[str, str, str]] = set()

    def judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raises PermissionError for what may not be."""
        what = event.removeprefix("socket.")
        to = self._beyond(what, arguments)
        if to is None:
            return
        by = " < ".join(_packages(sys._getframe(2)))
        self._tell(what, to, by)
        raise PermissionError(f"sealed: {what} {to} is refused, it is not on this machine")

    def _beyond(self, what: str, arguments: tuple[Any, ...]) -> str | None:
        """Where it would go, if that is beyond this machine."""
        if what in ("connect", "sendto", "sendmsg", "bind"):
            sock, address = arguments[:2]
            if address is None or sock.family in _INSIDE:
                return None
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                return f"{sock.family!r} {address!r}"
            host, port = address[:2]
            return None if self._may(host, any_is_local=what != "bind") else f"{_text(host)}:{port}"
        asked = arguments[0][0] if what == "getnameinfo" else arguments[0]
        # What is written as an address is not looked up by name; the other two look up the names of addresses.
        is_address = what in ("getaddrinfo", "gethostbyname") and _address(_text(asked)) is not None
        return None if asked is None or is_address or self._may(asked, any_is_local=True) else _text(asked)

    def _may(self, host: Any, any_is_local: bool) -> bool:
        text = _text(host)
        address = _address(text)
        if address is None:
            return text == "localhost" or (text == "" and any_is_local)
        return address.is_loopback or (address.is_unspecified and any_is_local) or address in self._allowed

    def _tell(self, what: str, to: str, by: str) -> None:
        if (what, to, by) not in self._told:
            self._told.add((what, to, by))
            self._say(f"sealed: refused {what} {to} ({by})")
        if self._record:
            process = " ".join(getattr(sys, "argv", ["python"]))[:160]
            line = json.dumps({"what": what, "to": to, "by": by, "process": process, "pid": os.getpid()})
            with suppress(OSError), open(self._record, "a", encoding="utf-8") as file:
                file.write(line + "\n")


def _text(host: Any) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes | bytearray) else str(host)


def _address(text: str) -> Any:
    """None for a name. An IPv4 address in IPv6's clothes is the IPv4 address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _packages(frame: FrameType | None) -> Iterator[str]:
    """Who asked for it: in each package on the stack the innermost line, the standard library aside."""
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
    """As it is imported."""
    roots = [entry for entry in sys.path if entry and path.startswith(entry + os.sep)]
    return path[len(max(roots, key=len)) + 1 :] if roots else path
