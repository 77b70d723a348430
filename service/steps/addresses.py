"""Which addresses http steps may reach: the global internet, and what the operator has allowed.

Judged by the address a socket is about to connect to, never by how a URL spells it.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from msgspec import Struct

AddrInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

# The IANA special-purpose registries, spelled out: ``is_global`` of Python 3.11 calls several of them global.
_NOT_GLOBAL_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # Azure's metadata service, at an address that looks public
        ),
    )
)  # fmt: skip
# No name ends with a digit: what does is an address in a spelling that ipaddress does not know.
_HOST = re.compile(r"(?:[a-z0-9_-]+\.)*[a-z0-9_-]*[a-z_-]\.?", re.ASCII | re.IGNORECASE)
_GLOBAL_V6 = IPv6Network("2000::/3")
_NOT_GLOBAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64 = IPv6Network("64:ff9b::/96")


class Allowed(Struct, frozen=True):
    """What may be reached outside the global internet: host names (lower case) and networks."""

    hosts: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]

    def permits(self, address: str) -> bool:
        """Say whether a connection to the IP ``address`` is allowed."""
        ip = _unwrap(ipaddress.ip_address(address))
        return is_global(ip) or any(ip in network for network in self.networks)


class RefusedAddress(OSError):
    """The address is not in the global internet."""

    def __init__(self) -> None:
        super().__init__("the address is not in the global internet")


def parse_allowed(entries: Iterable[str]) -> Allowed:
    """Return what ``entries`` allow: host names, IP addresses, CIDRs. Raises ValueError."""
    hosts: set[str] = set()
    networks: list[IPv4Network | IPv6Network] = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]")))
        except ValueError:
            if not _HOST.fullmatch(entry):
                raise ValueError(f"{entry!r} is neither a host name nor an address nor a CIDR") from None
            hosts.add(entry.lower().rstrip("."))
    return Allowed(frozenset(hosts), tuple(networks))


def is_global(ip: IPv4Address | IPv6Address) -> bool:
    """Say whether ``ip``, not one that wraps another, is a unicast address of the global internet."""
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NOT_GLOBAL_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _NOT_GLOBAL_V6)


def socket_factory(allowed: Allowed | None) -> Callable[[AddrInfo], socket.socket]:
    """Return what makes sockets for permitted addresses and raises RefusedAddress for others.

    ``None`` permits every address.
    """

    def make(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if allowed is not None and not allowed.permits(address[0]):
            raise RefusedAddress
        return socket.socket(family, kind, protocol)

    return make


def _unwrap(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that a mapped or NAT64 address leads to."""
    if isinstance(ip, IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip
