"""Detection of packets to other machines, from any code, in a namespace made by `namespace.enter`."""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS = 263, 6
TCP, UDP, ICMP, ICMPV6 = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6
SYN, RST, ACK = 0x02, 0x04, 0x10
ECHO_REQUESTS = {ICMP: 8, ICMPV6: 128}
ICMP_ERRORS = {ICMP: (3, 11, 12), ICMPV6: (1, 2, 3, 4)}
"""The kernel's own replies to a packet that nobody wants; a RST is one as well."""
DNS_PORT = 53
BUFFER_BYTES = 8 << 20
POLL_S = 0.2

Sent = tuple[str, str]
"""An action and its target: ("connect", "192.0.2.7:443"), ("look-up", "host.lan of 10.0.0.2:53")."""


class PacketWatch:
    """Counts attempts in `sent` from construction until `close`. Raises OSError if packets may not be captured.

    A UDP socket that is connected but never written to sends no packet, and is not seen.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self.sent: Counter[Sent] = Counter()
        self._allowed = {ip_address(text) for text in allowed}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.settimeout(POLL_S)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """Stop after the packets sent so far; returns how many packets were dropped unseen."""
        self._closed.set()
        self._thread.join()
        _, dropped = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        return int(dropped)

    def _run(self) -> None:
        while True:
            try:
                packet, (_, protocol, kind, *_) = self._socket.recvfrom(2048)
            except TimeoutError:
                if self._closed.is_set():
                    return
                continue
            # Loopback shows each packet twice.
            if kind == socket.PACKET_OUTGOING and (sent := read(protocol, packet, self._allowed)):
                self.sent[sent] += 1


def read(protocol: int, packet: bytes, allowed: Collection[IPv4Address | IPv6Address] = ()) -> Sent | None:
    """The attempt that a packet makes on another machine; None if its target is local or it is only a refusal of one.

    Every other packet counts, since each can carry data: a segment without a SYN, any kind of ICMP.
    """
    if protocol == ETH_P_IP:
        to: IPv4Address | IPv6Address = IPv4Address(packet[16:20])
        transport, payload = packet[9], packet[4 * (packet[0] & 0x0F) :]
    elif protocol == ETH_P_IPV6:
        to = IPv6Address(packet[24:40])
        transport, payload = packet[6], packet[40:]
    else:
        return None
    port = struct.unpack_from("!H", payload, 2)[0] if transport in (TCP, UDP) else None
    # A resolver on this machine would ask others, so local look-ups count too.
    if to in allowed or (to.is_loopback and port != DNS_PORT):
        return None
    return _attempt(transport, payload, f"[{to}]" if to.version == 6 else str(to), port)


def _attempt(transport: int, payload: bytes, to: str, port: int | None) -> Sent | None:
    if transport == UDP:
        return ("look-up", f"{_name(payload[8:])} of {to}:{port}") if port == DNS_PORT else ("send", f"{to}:{port}")
    if transport == TCP:
        flags = payload[13] & (SYN | RST | ACK)
        return None if flags & RST else ("connect" if flags == SYN else "send TCP", f"{to}:{port}")
    if transport in ECHO_REQUESTS:
        kind = payload[0]
        what = "ping" if kind == ECHO_REQUESTS[transport] else f"ICMP type {kind}"
        return None if kind in ICMP_ERRORS[transport] else (what, to)
    return (f"IP protocol {transport}", to)


def _name(query: bytes) -> str:
    """The name in a DNS query."""
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
        at += 1 + query[at]
    return ".".join(labels)
