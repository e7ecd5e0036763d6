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
