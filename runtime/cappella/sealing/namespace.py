"""A network namespace with only loopback for this process. Needs no program other than Python."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
CLONE_NEWIPC, CLONE_NEWPID = 0x08000000, 0x20000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
NETLINK_ROUTE, RTM_NEWROUTE, NLMSG_ERROR = 0, 24, 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE = 0x1, 0x4, 0x400
RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, RTA_OIF = 255, 4, 254, 2, 4
LOOPBACK_INDEX = 1

# Look-ups through these sockets are made by other processes, outside the namespace.
RESOLVERS = ("/run/systemd/resolve", "/run/nscd", "/var/lib/sss/pipes")

_libc = ctypes.CDLL(None, use_errno=True)


def enter(hidden: Sequence[str] = RESOLVERS) -> None:
    """Move this process, which must have one thread, and its children into a new namespace; irreversible.

    All addresses are routed to loopback there, where nothing listens: a connect is refused at once, and packets.py sees
    its destination. Raises OSError if the kernel forbids a step; the process must not be used after that.
    """
    _unshare()
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    for folder in filter(os.path.isdir, hidden):
        _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, None)
    _raise_loopback()
    _route_all_to_loopback(socket.AF_INET)
    if Path("/proc/net/if_inet6").exists():
        _route_all_to_loopback(socket.AF_INET6)


def enter_alone(own_network: bool, hidden: Sequence[str] = RESOLVERS) -> None:
    """Move this process, which must have one thread, into a user namespace of its own, and its children also into one of processes.

    With `own_network` they reach nothing, not even services on this machine's loopback. Raises OSError like `enter`.
    """
    _unshare_as_user(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | (CLONE_NEWNET if own_network else 0))
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    if own_network:
        for folder in filter(os.path.isdir, hidden):
            _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, None)
        _raise_loopback()


def show_own_processes() -> None:
    """Mount a /proc with the processes of this namespace only. Raises OSError where the kernel forbids it."""
    _call("unshare", CLONE_NEWNS)
    _call("mount", b"proc", b"/proc", b"proc", 0, None)


def _unshare() -> None:
    """Unshare directly if permitted, else inside a user namespace with the same user and group ids."""
    try:
        _call("unshare", CLONE_NEWNET | CLONE_NEWNS)
    except PermissionError:
        _unshare_as_user(CLONE_NEWNET | CLONE_NEWNS)


def _unshare_as_user(flags: int) -> None:
    """Unshare inside a user namespace with the same user and group ids."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path("/proc/self", name).write_text(text)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def _route_all_to_loopback(family: int) -> None:
    """Does the same as `ip route add local default dev lo`."""
    scope = RT_SCOPE_HOST if family == socket.AF_INET else 0
    route = struct.pack("=8BI", family, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, scope, RTN_LOCAL, 0)
    out = struct.pack("=HHI", 8, RTA_OIF, LOOPBACK_INDEX)
    head = struct.pack("=IHHII", 16 + len(route + out), RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        sock.send(head + route + out)
        kind, error = struct.unpack_from("=4xH10xi", sock.recv(4096))
    if kind == NLMSG_ERROR and error:
        raise OSError(-error, f"adding a route to loopback: {os.strerror(-error)}")


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library. Raises OSError with its name."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
