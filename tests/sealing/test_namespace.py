"""The network namespace, and the packets that the kernel sees from code that the guard does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cappella.sealing.packets import ETH_P_IP, ETH_P_IPV6, Sent, read
from support.network_namespace import needs_namespaces
from support.stub_engine import environment

NATIVE = """
import ctypes, struct
def native_connect(address, port):
    libc = ctypes.CDLL(None, use_errno=True)
    sock = libc.socket(2, 1, 0)
    to = struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(address))
    return libc.connect(sock, to, len(to)) and ctypes.get_errno()
"""


def inside(code: str, *arguments: str) -> Any:
    """Run `code` in a watched namespace; returns its `result` and the packets seen."""
    script = f"""
import json, os, socket, sys, time
from cappella.sealing import namespace, packets
{NATIVE}
namespace.enter(hidden=sys.argv[1:])
watch = packets.PacketWatch(["192.0.2.200"])
{code}
lost = watch.close()
print(json.dumps([result, sorted(watch.sent.items()), lost]))
"""
    command = [sys.executable, "-c", script, *arguments]
    return json.loads(subprocess.run(command, env=environment(Path()), capture_output=True, check=True).stdout)


@needs_namespaces
def test_a_connect_of_native_code_is_refused_at_once_and_seen() -> None:
    result, sent, lost = inside("result = native_connect('198.51.100.9', 443)")
    assert (result, lost) == (111, 0)
    assert sent == [[["connect", "198.51.100.9:443"], 1]]


@needs_namespaces
def test_a_look_up_of_a_name_is_seen_with_the_name() -> None:
    code = "result = None\ntry: socket.getaddrinfo('telemetry.example', 443)\nexcept OSError: result = 'failed'"
    result, sent, _ = inside(code)
    assert result == "failed"
    assert {what for (what, _), _ in sent} == {"look-up"}
    assert any(to.startswith("telemetry.example of ") for (_, to), _ in sent)


@needs_namespaces
def test_loopback_works_and_is_no_attempt_and_neither_is_what_is_allowed() -> None:
    code = """
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"hello")
result = [client.recv(5).decode(), native_connect("192.0.2.200", 443)]
"""
    result, sent, _ = inside(code)
    assert result == ["hello", 111]
    assert sent == []


@needs_namespaces
def test_sockets_of_resolvers_outside_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "socket").touch()
    result, _, _ = inside("result = os.listdir(sys.argv[1])", str(tmp_path))
    assert result == []
    assert (tmp_path / "socket").exists()


@needs_namespaces
def test_own_unix_sockets_are_no_attempt_whoever_has_closed_what() -> None:
    code = """
import tempfile
from cappella.sealing import sockets
seen = sockets.SocketWatch()
folder = tempfile.mkdtemp()
server, client, late = (socket.socket(socket.AF_UNIX) for _ in range(3))
server.bind(folder + "/s")
server.listen()
client.connect(folder + "/s")
accepted = server.accept()[0]
late.connect(folder + "/s")
pair = socket.socketpair()
seen._look()
late.close()
server.close()
log, sender = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
log.bind(folder + "/log")
sender.connect(folder + "/log")
seen.close()
result = sorted(seen.seen.items())
"""
    assert inside(code)[0] == []


SYN = "4500003c89254000400691770808080808080808c82601bbe9f5bb7800000000a002ffd7204e00000204ffd70402080a9ea38bad0000000001030307"
RESET = "450000280000400040061ab1080808080808080801bbc82600000000e9f5bb795014000020600000"
DATAGRAM = "4500001dc850400040114e5c0909090909090909c65e007b0009243e78"
UNREACHABLE = (
    "45c0003962b400004001f32c090909090909090903039a21000000004500001dc850400040114e5c0909090909090909c65e00350009243e78"
)
QUERY = "450000368cac4000401199a10affff350affff35daaa00350022149dfc9b0100000100000000000004686f7374036c616e0000010001"
SYN6 = (
    "600b9f7b002806400000000000000000000000000000000120014860486000000000000000008888adee01bb0a1d615600000000a002ffc4397900"
    "00"
)


def to_loopback(packet: str) -> str:
    return packet[:32] + "7f000035" + packet[40:]


@pytest.mark.parametrize(
    ("protocol", "packet", "sent"),
    [
        (ETH_P_IP, SYN, ("connect", "8.8.8.8:443")),
        (ETH_P_IP, RESET, None),
        (ETH_P_IP, to_loopback(SYN), None),
        (ETH_P_IP, DATAGRAM, ("send", "9.9.9.9:123")),
        (ETH_P_IP, UNREACHABLE, None),
        (ETH_P_IP, QUERY, ("look-up", "host.lan of 10.255.255.53:53")),
        # A resolver on this machine would ask others.
        (ETH_P_IP, to_loopback(QUERY), ("look-up", "host.lan of 127.0.0.53:53")),
        (ETH_P_IPV6, SYN6, ("connect", "[2001:4860:4860::8888]:443")),
        (0x0806, SYN, None),
        # Data without a connect: ACK, FIN, SYN and ACK.
        (ETH_P_IP, SYN.replace("a002", "a010"), ("send TCP", "8.8.8.8:443")),
        (ETH_P_IP, SYN.replace("a002", "a001"), ("send TCP", "8.8.8.8:443")),
        (ETH_P_IP, SYN.replace("a002", "a012"), ("send TCP", "8.8.8.8:443")),
        (ETH_P_IP, to_loopback(SYN.replace("a002", "a010")), None),
        (ETH_P_IP, UNREACHABLE.replace("03039a21", "08009a21"), ("ping", "9.9.9.9")),
        (ETH_P_IP, UNREACHABLE.replace("03039a21", "00009a21"), ("ICMP type 0", "9.9.9.9")),
        (ETH_P_IP, UNREACHABLE.replace("03039a21", "0d009a21"), ("ICMP type 13", "9.9.9.9")),
    ],
)
def test_packets_are_read_as_what_they_try(protocol: int, packet: str, sent: Sent | None) -> None:
    assert read(protocol, bytes.fromhex(packet)) == sent
