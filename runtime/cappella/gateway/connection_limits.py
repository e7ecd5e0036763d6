"""Bounds the open connections of a server, in all and from one address."""

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

_LOOPBACK = "loopback"


class Closable(Protocol):
    """A connection."""

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is in progress."""
        ...

    @property
    def transport(self) -> "_Transport": ...


class _Transport(Protocol):
    def close(self) -> None: ...


class ConnectionLimits:
    """At most `max_in_all` connections, and `max_per_address` from one address that is not loopback.

    A reverse proxy on the same machine has all its clients' connections, so loopback has no limit of its own. When all
    are taken, the one that was idle from the beginning or for the longest makes room. `refused` is called with the limit
    that a refused connection met: "address" or "all".
    """

    def __init__(
        self, max_in_all: int, max_per_address: int, refused: Callable[[str], None] = lambda limit: None
    ) -> None:
        self._max_in_all = max_in_all
        self._max_per_address = max_per_address
        self._refused = refused
        self._addresses: dict[Closable, str] = {}
        self._counts: Counter[str] = Counter()

    def admit(self, connection: Closable, host: str) -> bool:
        """Count the connection until `forget`; False if there are too many."""
        address = _address(host)
        if address != _LOOPBACK and self._counts[address] >= self._max_per_address:
            self._refused("address")
            return False
        if len(self._addresses) >= self._max_in_all and not self._make_room():
            self._refused("all")
            return False
        self._addresses[connection] = address
        self._counts[address] += 1
        return True

    def forget(self, connection: Closable) -> None:
        """It is closed; one that was not admitted was not counted."""
        if (address := self._addresses.pop(connection, None)) is not None:
            self._counts[address] -= 1
            self._counts += Counter()

    def _make_room(self) -> bool:
        idle = next((each for each in self._addresses if each.is_idle), None)
        if idle is None:
            return False
        self.forget(idle)
        idle.transport.close()
        return True


def _address(host: str) -> str:
    """What is counted as one address: of IPv6 the network of 64 bits that one host has."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return _LOOPBACK
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return _LOOPBACK
    return str(address) if address.version == 4 else str(int(address) >> 64)
