"""Who is at the other end: the connection's own address, or what a proxy that we trust says of it."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from service.api.asgi import Scope
from service.api.problems import Problem

Address = IPv4Address | IPv6Address


class Proxies:
    """The networks of ``trusted`` proxies; without any, nothing that a request says of its way is believed.

    With some, every connection from elsewhere is refused, save this machine's own: whoever comes past the
    proxy comes without its TLS.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in trusted]

    def seen_through(self, scope: Scope) -> Problem | None:
        """Put the client's address and scheme into ``scope``, or return why it may not come this way."""
        if not self._networks:
            return None
        peer = _address((scope.get("client") or ("",))[0])
        if peer is None or not self._trusted(peer):
            local = peer is not None and peer.is_loopback
            return None if local else Problem(403, "This service is reached through its proxy only.")
        address = self._client(scope, peer)
        if address is None:
            return Problem(400, "X-Forwarded-For does not hold addresses.")
        scope["client"] = (str(address), 0)
        if _last(scope, b"x-forwarded-proto") == "https":
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
        return None

    def counted_peer(self, peer: str) -> str:
        """Return under which address a connection is counted, empty for a proxy's and this machine's own."""
        address = _address(peer)
        return "" if address is None or self._trusted(address) else _counted(address)

    def _client(self, scope: Scope, peer: Address) -> Address | None:
        """Return the last hop that is none of our proxies; anybody may have written what is before it."""
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hops = b",".join(values).decode("latin-1").split(",") if values else []
        address: Address = peer
        for hop in reversed(hops):
            found = _address(hop.strip())
            if found is None:
                return None
            address = found
            if not self._trusted(address):
                break
        return address

    def _trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _last(scope: Scope, name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1").rpartition(",")[2].strip().lower() if values else ""


def _address(text: str) -> Address | None:
    """Return an address; of one with a port, or of an IPv4 address in IPv6 clothes, what is inside."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def counted_address(scope: Scope) -> str:
    """Return under which address a client is counted, empty for this machine's own; IPv6 as a /64 has it."""
    address = _address((scope.get("client") or ("",))[0])
    return "" if address is None else _counted(address)


def _counted(address: Address) -> str:
    if address.is_loopback:
        return ""
    if address.version == 4:
        return str(address)
    return str(ip_network((address, 64), strict=False))
