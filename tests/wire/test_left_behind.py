"""What is held for a client that takes nothing, and left behind by one that goes: no more than is on its way."""

import asyncio
import gc
import socket
import struct
import time
import weakref

import msgspec
import pytest
from uvicorn.protocols.utils import ClientDisconnected
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from service.log.memory import MemoryLog
from service.wire.connection import Connection
from service.wire.http_protocol import HttpProtocol
from tests.wire.server import (
    Service,
    client_frame,
    close_of,
    frames_of,
    read_all,
    read_head,
    service,
    upgrade,
)

PAGE_BYTES = 2**20  # more than any buffer on the way holds


class Page(bytearray):
    """A page that can be watched."""


class OnePage(Service):
    """Sends every client one page, of which ``page`` knows whether it is there."""

    page: "weakref.ref[Page] | None" = None

    async def app(self, scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        page = Page(PAGE_BYTES)
        self.page = weakref.ref(page)
        try:
            await send({"type": "websocket.send", "preframed": memoryview(page)})
        except ClientDisconnected:
            pass


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_page_that_was_on_its_way_goes_with_the_client(loop):
    running = OnePage(loop=loop)
    running.start()
    gc.disable()  # it would hide what is left
    try:
        client = upgrade(running)
        read_head(client)
        client.recv(1000)  # of the page: it is on its way
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert running.page is not None
        deadline = time.monotonic() + 10
        while running.page() is not None:
            assert time.monotonic() < deadline, "a page outlives its client"
            time.sleep(0.01)
    finally:
        gc.enable()
        running.stop()


class Data(bytes):
    """An event's bytes that tell whether they are still there."""

    alive = 0

    def __init__(self, _: bytes) -> None:
        Data.alive += 1

    def __del__(self) -> None:
        Data.alive -= 1


class CountedLog(MemoryLog):
    """Gives events whose bytes are counted."""

    given = 0

    async def read(self, stream, *, after, limit):
        page = await super().read(stream, after=after, limit=limit)
        self.given += len(page)
        return [msgspec.structs.replace(event, data=Data(event.data)) for event in page]


async def test_nothing_is_held_of_the_rows_that_wait_for_a_client():
    log = CountedLog()
    with service(log=log) as running:
        await running.write_run(3_000, sealed=False, size=200)
        with upgrade(running, SO_RCVBUF=4096) as client:
            read_head(client)
            gc.disable()
            try:
                deadline = time.monotonic() + 10
                while Data.alive or log.given < 500:
                    assert time.monotonic() < deadline, f"{Data.alive} of {log.given} rows are held"
                    await asyncio.sleep(0.01)
                assert log.given < 3_000, "it took everything"
            finally:
                gc.enable()


class WatchedHttpProtocol(HttpProtocol):
    """Tells whether one is still there that a connection began with."""

    alive = 0

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        WatchedHttpProtocol.alive += 1

    def __del__(self) -> None:
        WatchedHttpProtocol.alive -= 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_what_read_the_handshake_goes_with_it(loop):
    with service(loop=loop, http=WatchedHttpProtocol) as running:
        await running.write_run(1, sealed=False)
        gc.disable()
        try:
            with upgrade(running) as client:
                read_head(client)
                assert client.recv(1), "it has parked"
                assert WatchedHttpProtocol.alive == 0
        finally:
            gc.enable()


def of_handshakes() -> dict[int, object]:
    gc.collect()
    types = Request, Response, Headers, Connection, HttpProtocol
    return {id(each): each for each in gc.get_objects() if isinstance(each, types)}


@pytest.mark.parametrize(
    "said", [b"", client_frame(1, b"hello") + client_frame(9, b"") + client_frame(10, b"")]
)
async def test_an_idle_connection_keeps_nothing_of_its_handshake_and_of_what_was_said(said):
    with service() as running:
        await running.write_run(1, sealed=False)
        before = of_handshakes()
        with upgrade(running) as client:
            read_head(client)
            client.sendall(said)
            deadline = time.monotonic() + 10
            while found := of_handshakes().keys() - before.keys():
                assert time.monotonic() < deadline, found
                await asyncio.sleep(0.05)
            (connection,) = running.server.server_state.connections
            assert vars(connection) == {}
            client.sendall(client_frame(8, (1000).to_bytes(2, "big")))  # it is still a WebSocket
            assert close_of(frames_of(read_all(client))) == (1000, "")
