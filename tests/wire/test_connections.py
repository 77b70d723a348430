"""How many connections one address may have: those over it are refused, and what is over is counted no longer."""

from contextlib import ExitStack

import pytest

from service.api.peers import Proxies
from service.wire.connections import Connections
from tests.wire.server import QuickHttpProtocol, read_all, read_head, service, upgrade

ECHO = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"


class Counting(QuickHttpProtocol):
    header_timeout_s = 60
    counted: Connections


@pytest.fixture
def running():
    Counting.counted = Connections(3, lambda peer: peer)
    with service(http=Counting) as running:
        yield running


def asked(running) -> bytes:
    with running.connect() as client:
        client.sendall(ECHO)
        return read_head(client)


async def test_over_the_bound_a_connection_is_refused_until_another_has_gone(running):
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(running.connect())
            client.sendall(ECHO)
            assert read_head(client).startswith(b"HTTP/1.1 204")
        with running.connect() as fourth:
            answer = read_all(fourth)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"\r\nretry-after: 5\r\n" in answer
    tries = 1_000
    while not asked(running).startswith(b"HTTP/1.1 204"):  # the last one's end may not have arrived
        tries -= 1
        assert tries


async def test_who_has_become_a_stream_is_counted_there(running):
    await running.write_run(1, sealed=False)
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(upgrade(running))
            assert read_head(client).startswith(b"HTTP/1.1 101")
        assert asked(running).startswith(b"HTTP/1.1 204")


def test_proxies_and_this_machine_are_not_counted():
    counted = Proxies(["10.0.0.0/24"]).counted_peer
    named = {
        each: counted(each) for each in ("10.0.0.7", "127.0.0.1", "::1", "192.0.2.1", "2001:db8:1:2::9", "")
    }
    assert named == {
        "10.0.0.7": "", "127.0.0.1": "", "::1": "", "192.0.2.1": "192.0.2.1",
        "2001:db8:1:2::9": "2001:db8:1:2::/64", "": "",
    }  # fmt: skip
    connections = Connections(1, counted)
    assert [connections.take("192.0.2.1"), connections.take("192.0.2.1")] == ["192.0.2.1", None]
    assert [connections.take("127.0.0.1") for _ in range(3)] == [""] * 3
    assert [Connections(0, counted).take("192.0.2.1") for _ in range(3)] == [""] * 3
