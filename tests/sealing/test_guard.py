"""What the guard refuses, tested in separate processes because audit hooks cannot be removed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cappella.engines.vllm import server_args
from cappella.sealing import guard
from support.stub_engine import environment

REFUSED = {
    "an address": "socket.socket().connect(('192.0.2.1', 443))",
    "an address without waiting": "socket.socket().connect_ex(('192.0.2.1', 443))",
    "an IPv6 address": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 443))",
    "an IPv4 address in IPv6's clothes": "socket.socket(socket.AF_INET6).connect(('::ffff:192.0.2.1', 443))",
    "a datagram's way": "socket.socket(type=socket.SOCK_DGRAM).connect(('8.8.8.8', 80))",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "a message": "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 53))",
    "a name": "socket.getaddrinfo('telemetry.example', 443)",
    "a name as bytes": "socket.getaddrinfo(b'telemetry.example', 443)",
    "a name, the old way": "socket.gethostbyname('telemetry.example')",
    "the name of an address": "socket.gethostbyaddr('192.0.2.1')",
    "every interface": "socket.socket().bind(('', 0))",
    "every interface of IPv6": "socket.socket(socket.AF_INET6).bind(('::', 0))",
    "a page, by urllib": "urllib.request.urlopen('https://telemetry.example/')",
    "a page, in a thread": "ThreadPoolExecutor().submit(urllib.request.urlopen, 'http://192.0.2.1/').result()",
    "asyncio": "asyncio.run(asyncio.open_connection('192.0.2.1', 443))",
    "uvloop's sock_connect": "uvloop.run(by_socket('192.0.2.1'))",
    "aiohttp": "asyncio.run(by_aiohttp('http://192.0.2.1/'))",
    "a forked child": "in_a_fork(lambda: socket.socket().connect(('192.0.2.1', 443)))",
}
PASSES = {
    "loopback": "connect_to(socket.AF_INET, '127.0.0.1')",
    "another loopback": "connect_to(socket.AF_INET, '127.9.9.9')",
    "IPv6's loopback": "connect_to(socket.AF_INET6, '::1')",
    "localhost": "socket.getaddrinfo('localhost', 80)",
    "no name": "socket.getaddrinfo(None, 80)",
    "an address that needs no look-up": "socket.getaddrinfo('192.0.2.1', 80)",
    "a Unix socket": "unix_pair()",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind((0, 0))",
    "an address that is listed": "reach('192.0.2.77')",
}
SCRIPT = """
import asyncio, json, os, socket, sys, tempfile, urllib.request
from concurrent.futures import ThreadPoolExecutor
import aiohttp, uvloop
from cappella.sealing import guard

async def by_socket(host):
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, 443))

async def by_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.get(url):
        pass

def connect_to(family, host):
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind((host, 0))
        server.listen()
        client.connect(server.getsockname()[:2])

def unix_pair():
    path = tempfile.mkdtemp() + "/s"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)

def reach(host):
    try:
        socket.socket(type=socket.SOCK_DGRAM).connect((host, 443))
    except PermissionError:
        raise
    except OSError:
        pass  # no way to it from here: that is not the guard's doing

def in_a_fork(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except PermissionError:
            os._exit(7)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7:
        raise PermissionError("sealed: in a fork")

def outcome(call):
    try:
        eval(call)
    except Exception as error:
        while error and "sealed" not in str(error):
            error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        return "refused" if error else "failed"
    return "passed"

guard.install(["192.0.2.77"])
print(json.dumps({name: outcome(call) for name, call in json.loads(sys.argv[1]).items()}))
"""


def run(code: str, *arguments: str, **variables: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    env = {**environment(Path()), **variables}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    return dict(json.loads(run(SCRIPT, json.dumps({**REFUSED, **PASSES}))))


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "refused"


@pytest.mark.parametrize("name", PASSES)
def test_it_lets_pass(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == "passed"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_refusal_is_recorded_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "phones.py").write_text(
        "import urllib.request\ndef home():\n    try: urllib.request.urlopen('http://192.0.2.1:81/')\n    except OSError: pass"
    )
    code = f"import sys; sys.path.append({str(tmp_path)!r})\nfrom cappella.sealing import guard\nimport phones"
    run(f"{code}\nguard.install()\nphones.home()", **{guard.RECORD: str(tmp_path / "record")})
    (record,) = records(tmp_path / "record")
    assert (record["what"], record["to"]) == ("connect", "192.0.2.1:81")
    assert record["by"].startswith("phones.py:3 home")


def test_where_the_own_sockets_are_listed_others_are_refused(tmp_path: Path) -> None:
    code = """
import json, os, socket, sys
from cappella.sealing import guard
guard.install()
outcomes = []
for path in (*sys.argv[1:], "\\0abstract"):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
    except OSError as error:
        outcomes.append("sealed" in str(error))
print(json.dumps(outcomes))
"""
    own = str(tmp_path / "own-")
    (tmp_path / "own-link").symlink_to("/run")
    paths = [f"{own}engine.sock", str(tmp_path / "other.sock"), f"{own}link/docker.sock", f"{own}x/../other.sock"]
    assert json.loads(run(code, *paths, **{guard.OWN_SOCKETS: own})) == [False, True, True, True, False]


TRIES = "import socket; socket.socket().connect(('192.0.2.1', 443))"


@pytest.mark.parametrize("spawned", [False, True])
def test_an_engines_environment_brings_the_guard_into_every_python(tmp_path: Path, spawned: bool) -> None:
    env = {**server_args.environment(threads=1), guard.RECORD: str(tmp_path / "record")}
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TRIES!r}])"
    command = [sys.executable, "-c", inner if spawned else TRIES]
    subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    assert [record["to"] for record in records(tmp_path / "record")] == ["192.0.2.1:443"]


def test_what_is_listed_for_engines_passes_there() -> None:
    env = {**server_args.environment(threads=1), guard.ALLOWED: "192.0.2.1,127.0.0.1"}
    code = TRIES.replace("socket.socket()", "socket.socket(type=socket.SOCK_DGRAM)")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "sealed" not in done.stderr
