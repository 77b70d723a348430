"""Requests for a WebSocket that are none: each is answered like any other refusal, with what is wrong."""

import asyncio
import json
import logging
import random
import re

import pytest
from websockets.protocol import CONNECTING

from service.wire.connection import Connection
from service.wire.handshake import fault_of
from tests.wire.server import PREFIX, QuickHttpProtocol, read_all, read_head, service

GOOD = {
    "method": "GET", "path": f"{PREFIX}r/stream", "upgrade": "websocket", "connection": "Upgrade", "version": "13",
    "key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
ANOTHER_VERSION = {"upgrade": "websocket", "sec-websocket-version": "13", "connection": "close, upgrade"}
BAD = [
    ({"method": "POST"}, 405, {"allow": "GET"}),
    ({"method": "POST", "more": "Content-Length: 5\r\n", "body": "hello"}, 405, {"allow": "GET"}),
    ({"version": "12"}, 426, ANOTHER_VERSION),
    ({"version": "8"}, 426, ANOTHER_VERSION),
    ({"version": "13, 13"}, 426, ANOTHER_VERSION),
    ({"version": None}, 426, ANOTHER_VERSION),
    ({"version": "8", "key": None}, 426, ANOTHER_VERSION),
    ({"more": "Sec-WebSocket-Version: 13\r\n"}, 426, ANOTHER_VERSION),
    ({"key": None}, 400, {}),
    ({"key": ""}, 400, {}),
    ({"key": "short"}, 400, {}),
    ({"key": "AAAA"}, 400, {}),
    ({"key": "dGhlIHNhbXBsZSBub25jZQ"}, 400, {}),
    ({"key": "dGhlIHNhbXBsZSBub25jZQ!=="}, 400, {}),
    ({"key": "\xff" * 24}, 400, {}),
    ({"more": "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"}, 400, {}),
    ({"more": "Upgrade: websocket\r\n"}, 400, {}),
    ({"more": "Origin: http://x\r\nOrigin: http://x\r\n"}, 403, {}),
    ({"connection": "Upgrade, a b"}, 400, {}),
    ({"more": "Sec-WebSocket-Protocol: a b\r\n"}, 400, {}),
    ({"more": "Content-Length: 5\r\n", "body": "hello"}, 400, {}),
    ({"more": "Transfer-Encoding: chunked\r\n", "body": "0\r\n\r\n"}, 400, {}),
    ({"more": "X: " + "x" * 8_188 + "\r\n"}, 431, {}),
    ({"more": "X: x\r\n" * 124}, 431, {}),
    ({"path": f"{PREFIX}r/stream?" + "x" * 8_192}, 414, {}),
]
ODD = [
    {},
    {"upgrade": "WebSocket", "connection": "keep-alive, UPGRADE"},
    {"more": "Content-Length: 0\r\n"},
    {"more": "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n"},
    {"more": "Sec-WebSocket-Extensions: ;;;\r\n"},
    {"more": "X: " + "x" * 8_187 + "\r\n"},
    {"more": "X: x\r\n" * 123},
]


class Telling(QuickHttpProtocol):
    told: list[tuple[int, str, str]]

    def refused(self, status: int, address: str, request_id: str) -> None:
        self.told.append((status, address, request_id))


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def running(request):
    Telling.told = []
    with service(loop=request.param, http=Telling) as running:
        asyncio.run(running.write_run(1))
        yield running


def handshake(wrong: dict[str, str | None]) -> bytes:
    """Return a good request with ``wrong`` in the place of its parts, where None leaves a header out."""
    of = GOOD | {"more": "", "body": ""} | wrong
    headers = {
        "Host": "x", "Upgrade": of["upgrade"], "Connection": of["connection"],
        "Sec-WebSocket-Key": of["key"], "Sec-WebSocket-Version": of["version"],
    }  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value is not None)
    return f"{of['method']} {of['path']} HTTP/1.1\r\n{lines}{of['more']}\r\n{of['body']}".encode("latin-1")


@pytest.mark.parametrize(("wrong", "status", "headers"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_handshake_is_refused_with_a_problem_that_is_told(running, wrong, status, headers):
    Telling.told.clear()
    with running.connect() as client:
        client.sendall(handshake(wrong))
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    said = dict(header.split(": ", 1) for header in rest)
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert (
        said.items()
        >= ({"content-type": "application/problem+json", "connection": "close"} | headers).items()
    )
    assert int(said["content-length"]) == len(body)
    problem = json.loads(body)
    assert problem["status"] == status
    assert len(problem["detail"]) < 100
    assert re.fullmatch("[0-9a-f]{16}", said["x-request-id"])
    assert Telling.told == [(status, "127.0.0.1", said["x-request-id"])]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: str(value)[:60])
async def test_what_is_only_odd_is_let_in(running, odd):
    with running.connect() as client:
        client.sendall(handshake(odd))
        assert read_head(client).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("seed", range(1_000))
def test_nothing_is_left_for_websockets_to_refuse(seed):
    chance = random.Random(seed)
    url, headers = any_handshake(chance)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    one = Connection(4096, logging.getLogger("tests.wire"), CONNECTING)
    one.receive_data(b"GET %b HTTP/1.1\r\n%b\r\n" % (url, lines))
    requests = one.events_received()
    accepted = bool(requests) and one.accept(requests[0]).status_code == 101
    assert (fault_of("GET", url, headers) is None) == accepted


def any_handshake(chance: random.Random) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the url and the headers of what uvicorn takes for a request for a WebSocket, good or bad."""
    headers = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    headers += [(b"sec-websocket-key", GOOD["key"].encode()), (b"sec-websocket-version", b"13")]
    for _ in range(chance.choice((0, 1, 1, 2))):
        name = chance.choice((b"sec-websocket-key", b"sec-websocket-version"))
        headers = [header for header in headers if header[0] != name or chance.random() < 0.4]
    others: list[tuple[bytes, list[bytes]]] = [
        (b"upgrade", [b"h2c", b"websocket", b""]),
        (b"connection", [b"keep-alive", b"", b",", b"a b", b"Upgrade,,"]),
        (b"sec-websocket-key", [b"", b"short", b"AAAA", b"=" * 24, GOOD["key"].encode(), b"\xff", b" "]),
        (b"sec-websocket-version", [b"", b"8", b"13", b"13, 13", b"013"]),
        (b"sec-websocket-protocol", [b"", b"a", b"a, b", b"a b", b",", b"\xff", b"a,,b"]),
        (b"sec-websocket-extensions", [b"", b";", b"permessage-deflate; a=b", b"\xff"]),
        (b"content-length", [b"0", b"5", b"00", b""]),
        (b"transfer-encoding", [b"chunked"]),
        (b"origin", [b"null", b"\xff"]),
        (b"x", [b"x" * size for size in (0, 8_186, 8_187, 8_188, 8_189)]),
    ]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        name, values = chance.choice(others)
        headers.insert(0, (name, chance.choice(values)))
    headers += [(b"y", b"y")] * chance.choice((0, 0, 0, 122, 123, 124, 125))
    return b"/" * chance.choice((1, 1, 1, 8_176, 8_177, 8_178)), headers
