"""Large answers that nobody takes fill no memory: who takes nothing for longest is cut off first."""

import asyncio
import socket
import time

import pytest

from service.wire.unread import LARGE_BYTES, Unread
from tests.wire.server import LARGE, QuickHttpProtocol, read_head, service

ASK = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"


class Frugal(QuickHttpProtocol):
    unread = Unread(4 * len(LARGE))


@pytest.fixture(params=["uvloop", "asyncio"])
def running(request):
    with service(loop=request.param, http=Frugal) as running:
        yield running
    assert (Frugal.unread.bytes, Frugal.unread._of) == (0, {}), "nothing is left behind"


def asking(running) -> socket.socket:
    client = running.connect(SO_RCVBUF=4096)
    client.sendall(ASK)
    return client


def taken(client: socket.socket) -> int:
    """Read to the end and return how much of the answer came."""
    size = 0
    try:
        read_head(client)
        while size < len(LARGE):
            if not (more := client.recv(65_536)):
                break
            size += len(more)
    except ConnectionResetError:
        pass
    finally:
        client.close()
    return size


async def until(condition) -> None:
    deadline = time.monotonic() + 3  # an idle connection is closed after 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_who_takes_nothing_for_longest_is_cut_off(running):
    unread = Frugal.unread
    reading = asking(running)
    await until(lambda: len(unread._of) == 1)
    (outgoing,) = unread._of
    idle = []
    for number in range(10):
        idle.append(asking(running))
        await until(lambda n=number: len(unread._of) == min(n + 2, 4))
        waiting = outgoing.transport.get_write_buffer_size()
        for _ in range(16):
            reading.recv(4096)
        await until(lambda size=waiting: outgoing.transport.get_write_buffer_size() < size)
        assert 3 * LARGE_BYTES < unread.bytes <= 4 * len(LARGE)
    assert [await asyncio.to_thread(taken, client) == len(LARGE) for client in idle] == [False] * 7 + [
        True
    ] * 3
    while reading.recv(65_536) and unread._of:
        pass
    reading.close()


async def test_whoever_takes_it_or_leaves_is_not_counted(running):
    for _ in range(12):
        assert await asyncio.to_thread(taken, asking(running)) == len(LARGE)
    kept = asking(running)
    await until(lambda: len(Frugal.unread._of) == 1)
    left = len(LARGE)
    while left > 0:
        left -= len(kept.recv(65_536))
    await until(lambda: Frugal.unread.bytes == 0)
    clients = [asking(running) for _ in range(3)]
    await until(lambda: len(Frugal.unread._of) == 3)
    for client in clients:
        client.close()
    await until(lambda: Frugal.unread.bytes == 0)
    kept.close()
