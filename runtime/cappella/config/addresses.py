"""Addresses, host names and origins in a config."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from pydantic import AfterValidator


def _origin(text: str) -> str:
    """Requires the form that browsers send, because origins are compared as strings."""
    default_port = re.match(r"(https://.*:443|http://.*:80)$", text)
    if default_port or not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\sA-Z/?#@*]+", text):
        how = "scheme, host and any non-default port, in lower case, such as https://chat.lan"
        raise ValueError(f"{text!r} is not an origin as browsers send it: write {how}")
    return text


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]+", text):
        raise ValueError(f"{text!r} is not a host name: write it in lower case, without scheme, port or asterisk")
    return text


Origin = Annotated[str, AfterValidator(_origin)]
HostName = Annotated[str, AfterValidator(_host_name)]


def is_loopback(host: str) -> bool:
    address = address_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address, or None for a host name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
