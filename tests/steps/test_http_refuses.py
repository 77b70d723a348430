"""No spelling of an address, no name and no redirect leads an http step out of the global internet."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from service.steps.http import Http
from tests.steps.attempts import attempt

REFUSALS = {"refused_address", "bad_url", "bad_config", "connect"}


class Listeners:
    """Accepts on every loopback address of one port and counts who comes."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        for host in ("0.0.0.0", "::"):
            flags = {"family": socket.AF_INET6} if host == "::" else {}
            server = await asyncio.start_server(self._came, host, self.port, **flags)
            self.port = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()


@pytest.fixture
async def listeners() -> AsyncIterator[Listeners]:
    listeners = Listeners()
    await listeners.start()
    yield listeners
    await listeners.stop()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http(http_allow=())
    yield http
    await http.close()


def spellings_of_v4(address: str) -> Iterator[str]:
    a, b, c, d = (int(part) for part in address.split("."))
    number = int(ipaddress.IPv4Address(address))
    yield from (
        address,
        f"{address}.",
        str(number),
        hex(number),
        hex(number).upper(),
        f"0{number:o}",
        f"0x0{number:x}",
    )
    yield from (
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:03}.{b:03}.{c:03}.{d:03}",
    )
    yield from (f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{c * 256 + d}", f"{a:#x}.{b}.{c}.0{d:o}")
    yield from (f"00000{a:o}.{b}.{c}.{d}", f"{a}.{b}.{c}.{d}%00", f"{a}%2e{b}%2e{c}%2e{d}")
    yield from (address.translate(str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")), address.replace(".", "。"))
    yield address.translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    for prefix in ("::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "2002:"):
        yield f"[{prefix}{high}:{low}{'::' if prefix == '2002:' else ''}]"
    yield from (
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[0:0:0:0:0:ffff:{high}:{low}]",
        f"[::FFFF:{address}]",
    )


def urls(port: int) -> list[str]:
    hosts = [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ip6-localhost",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::1%25lo]",
    ]
    hosts += [
        "[0000::0001]",
        "[::0001]",
        "0",
        "0x0",
        "00",
        "0.0",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0177.1",
        socket.gethostname(),
    ]
    for address in ("127.0.0.1", "127.255.0.3", "0.0.0.0", "169.254.169.254", "10.0.0.1", "192.168.0.1"):
        hosts += spellings_of_v4(address)
    found = [f"http://{host}:{port}/" for host in hosts]
    found += [f"https://{host}:{port}/" for host in hosts[:30]]
    for trick in (
        "http://example.com@127.0.0.1:{}/", "http://127.0.0.1:{}#@example.com/", "http://127.0.0.1:{}?@example.com",
        "http://user:pass@localhost:{}/", "http://example.com%40127.0.0.1:{}/", "http://127.0.0.1:{}\\@example.com/",
        "http:\\\\127.0.0.1:{}/", "http:/127.0.0.1:{}/", "http:127.0.0.1:{}/", "//127.0.0.1:{}/", "127.0.0.1:{}",
        " http://127.0.0.1:{}/", "http://127.0.0.1:{}/\r\nX: y", "http://127.0.0.1\t:{}/", "http://127.0.0.1 :{}/",
        "HTTP://127.0.0.1:{}/", "hTTp://[::1]:{}/", "http:///127.0.0.1:{}/", "http://@127.0.0.1:{}/", "http://:@127.0.0.1:{}",
        "ftp://127.0.0.1:{}/", "file:///etc/passwd?{}", "gopher://127.0.0.1:{}/_x", "ws://127.0.0.1:{}/",
        "unix://127.0.0.1:{}/", "http+unix://%2Ftmp%2Fx:{}/", "data:text/plain,{}", "http://[::1]:{}@example.com/",
        "http://127.0.0.1:{}:80/", "http://127.0.0.1:0{}/", "http://127.0.0.1:+{}/", "http://127.0.0.1;x:{}/",
    ):  # fmt: skip
        found.append(trick.format(port))
    return found


async def test_no_spelling_of_an_inner_address_is_connected_to(listeners: Listeners, http: Http) -> None:
    candidates = [url for url in urls(listeners.port) if "example.com/" not in url.split("@")[-1]]
    assert len(set(candidates)) >= 200
    codes: dict[str, int] = {}
    for url in candidates:
        outcome = await http.run(attempt({"url": url, "timeout": "5s"}))
        assert outcome.status == "failed", url
        assert outcome.error is not None
        codes[outcome.error.code] = codes.get(outcome.error.code, 0) + 1
    assert listeners.connections == 0
    assert set(codes) <= REFUSALS, codes
    assert codes["refused_address"] >= 100, codes


async def test_the_listener_would_have_counted(listeners: Listeners) -> None:
    http = Http(http_allow=("127.0.0.0/8", "localhost"))
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        outcome = await http.run(attempt({"url": f"http://{host}:{listeners.port}/"}))
        assert outcome.status == "success", outcome
    await http.close()
    assert listeners.connections == 3


class Names(AbstractResolver):
    """Answers as it is told, another answer each time: what rebinding does."""

    def __init__(self, answers: list[list[str]]) -> None:
        self._answers = answers

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[Any]:
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            {
                "hostname": host, "host": address, "port": port, "proto": 0, "flags": 0,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
            }
            for address in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    "answers",
    [
        [["127.0.0.1"]],
        [["::1"]],
        [["127.0.0.1", "::1", "10.0.0.1"]],
        [["::ffff:127.0.0.1"]],
        [["169.254.169.254"]],
        [["0.0.0.0"]],
    ],
)
async def test_a_name_that_leads_inside_is_refused(
    listeners: Listeners, http: Http, answers: list[list[str]]
) -> None:
    session = http._session(__import__("yarl").URL("http://rebound.example/"))
    await session.connector._resolver.close()
    session.connector._resolver = Names(answers)
    outcome = await http.run(attempt({"url": f"http://rebound.example:{listeners.port}/"}))
    assert outcome.error is not None
    assert outcome.error.code == "refused_address"
    assert listeners.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_inside_is_refused(listeners: Listeners, status: int) -> None:
    async def outside(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": request.query["to"]})

    app = web.Application()
    app.router.add_get("/", outside)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.77", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    http = Http(http_allow=("127.0.0.77",))
    for to in (
        f"http://127.0.0.1:{listeners.port}/", f"//localhost:{listeners.port}/", f"http://[::1]:{listeners.port}/",
        f"http://2130706433:{listeners.port}/", "file:///etc/passwd", "ftp://127.0.0.1/",
    ):  # fmt: skip
        outcome = await http.run(attempt({"url": f"http://127.0.0.77:{port}/", "query": {"to": to}}))
        assert outcome.error is not None, to
        assert outcome.error.code in {"refused_address", "bad_url"}, outcome.error
    await http.close()
    await runner.cleanup()
    assert listeners.connections == 0
