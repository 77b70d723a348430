"""What a client says about itself does not get past the proxies: they set who it is and how it came."""

import re
import socket

import pytest

from tests.clients.between import Between
from tests.proxies.documented import NAME
from tests.proxies.proxy import AUTHORIZATION, KINDS, Proxy

FORGED = (
    "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 192.0.2.3\r\nx-forwarded-proto: https\r\n"
    "X-FORWARDED-PROTO: gopher\r\nForwarded: for=192.0.2.4;proto=https\r\n"
)
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Upstream(Between):
    """Answers everything; ``heads`` is what it was asked."""

    def _connection(self, peer: socket.socket, head: bytes) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def fields(head: str, name: str) -> list[str]:
    return re.findall(rf"(?im)^{name}: *(.*?)\r?$", head)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upgrade", ["", UPGRADE], ids=["plain", "upgrade"])
def test_forged_headers_are_replaced(tmp_path, kind, tls, upgrade):
    with Upstream() as upstream, Proxy(kind, tmp_path, upstream.port, tls=tls) as proxy:
        with proxy.connected() as bare:
            connection = proxy.tls.wrap_socket(bare, server_hostname=NAME) if proxy.tls else bare
            connection.sendall(
                f"GET /health HTTP/1.1\r\nHost: {proxy.authority}\r\nAuthorization: {AUTHORIZATION}\r\n"
                f"{FORGED}{upgrade}\r\n".encode()
            )
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
        head = upstream.heads[-1]
        assert fields(head, "X-Forwarded-For") == ["127.0.0.1"]
        assert fields(head, "X-Forwarded-Proto") == ["https" if tls else "http"]
        assert [value for value in fields(head, "Forwarded") if value] == []
        assert fields(head, "Host") == [proxy.authority]
        assert "192.0.2." not in head
