"""What a client leaves behind that goes while a page is on its way to it: nothing of the page."""

import gc
import socket
import struct
import time
import weakref

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from tests.wire.server import Service, read_head, upgrade

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
