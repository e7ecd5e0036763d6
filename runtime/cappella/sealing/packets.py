"""What the kernel sees leave for elsewhere, whatever code sent it: for a namespace that `namespace.enter` made."""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS = 263, 6
TCP, UDP, ICMP, ICMPV6 = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6
SYN, ACK = 0x02, 0x10
ECHO_REQUESTS = {ICMP: 8, ICMPV6: 128}
DNS_PORT = 53
BUFFER_BYTES = 8 << 20
POLL_S = 0.2

Sent = tuple[str, str]
"""What was done, and to whom: ("connect", "192.0.2.7:443"), ("look-up", "host.lan of 10.0.0.2:53")."""


class PacketWatch:
    """Counts in `sent`, from its making until `close`. Raises OSError where packets may not be watched.

    A UDP socket that is connected and never written to sends no packet, and is not seen.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self.sent: Counter[Sent] = Counter()
        self._allowed = {ip_address(text) for text in allowed}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.settimeout(POLL_S)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """End with what has been sent by now; returns how many packets were too many to be looked at."""
        self._over.set()
        self._thread.join()
        _, dropped = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        return int(dropped)

    def _run(self) -> None:
        while True:
            try:
                packet, (_, protocol, kind, *_) = self._socket.recvfrom(2048)
            except TimeoutError:
                if self._over.is_set():
                    return
                continue
            # Over loopback each packet goes by twice.
            if kind == socket.PACKET_OUTGOING and (sent := read(protocol, packet, self._allowed)):
                self.sent[sent] += 1


def read(protocol: int, packet: bytes, allowed: Collection[IPv4Address | IPv6Address] = ()) -> Sent | None:
    """What a packet tries to do elsewhere; None if it stays here, or only answers."""
    if protocol == ETH_P_IP:
        to: IPv4Address | IPv6Address = IPv4Address(packet[16:20])
        transport, payload = packet[9], packet[4 * (packet[0] & 0x0F) :]
    elif protocol == ETH_P_IPV6:
        to = IPv6Address(packet[24:40])
        transport, payload = packet[6], packet[40:]
    else:
        return None
    port = struct.unpack_from("!H", payload, 2)[0] if transport in (TCP, UDP) else None
    # Who looks up names on this machine asks others.
    if to in allowed or (to.is_loopback and port != DNS_PORT):
        return None
    return _attempt(transport, payload, f"[{to}]" if to.version == 6 else str(to), port)


def _attempt(transport: int, payload: bytes, to: str, port: int | None) -> Sent | None:
    if transport == UDP:
        return ("look-up", f"{_name(payload[8:])} of {to}:{port}") if port == DNS_PORT else ("send", f"{to}:{port}")
    if transport == TCP:
        return ("connect", f"{to}:{port}") if payload[13] & (SYN | ACK) == SYN else None
    if transport in ECHO_REQUESTS:
        return ("ping", to) if payload[0] == ECHO_REQUESTS[transport] else None
    return (f"IP protocol {transport}", to)


def _name(query: bytes) -> str:
    """The name that a DNS query asks for."""
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
        at += 1 + query[at]
    return ".".join(labels)
