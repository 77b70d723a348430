"""The ways to read a run's stream, as clients that can be slow: messages as they come, to the end of the run."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

from msgspec import Raw
from msgspec.json import decode
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

TIMEOUT_S = 120
SLOW_BYTES = 4096  # of a slow client's own buffers


def path_of(run_id: str, asked: dict[str, str], leaf: str = "stream") -> str:
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    return f"/api/v2/workflows/runs/{run_id}/{leaf}?{query}"


def connected(server, *, slow: bool) -> socket.socket:
    client = socket.socket()
    if slow:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BYTES)
    client.connect(("127.0.0.1", server.port))
    return client


async def over_websocket(server, run_id: str, asked: dict[str, str], *, slow: bool) -> AsyncIterator[bytes]:
    async with AsyncExitStack() as stack:
        opening = connect(
            f"{server.ws_url}{path_of(run_id, asked)}",
            sock=connected(server, slow=slow),
            max_queue=1 if slow else 16,
            compression=None,
            ping_interval=None,
            open_timeout=TIMEOUT_S,
        )
        client = await stack.enter_async_context(opening)
        stack.callback(client.transport.abort)  # who leaves early leaves without a word
        try:
            while True:
                yield await client.recv(decode=False)
        except ConnectionClosed as closed:
            end = closed.rcvd
    assert end is not None, "cut off"
    assert end.code == 1000, end
    assert end.reason.startswith("run success lastSeq="), end


async def over_sse(server, run_id: str, asked: dict[str, str], *, slow: bool) -> AsyncIterator[bytes]:
    name, seq, data = b"message", None, b""
    async with aclosing(_lines(server, run_id, asked, "text/event-stream", slow=slow)) as lines:
        async for line in lines:
            field, _, value = line.partition(b": ")
            match field:
                case b"event":
                    name = value
                case b"id":
                    seq = int(value)
                case b"data":
                    data = value
                case b"" if data and name != b"end":
                    said = json.loads(data)
                    if name == b"message":
                        assert said["seq"] == seq
                    else:
                        assert (said["type"].encode(), said["payload"].get("seq")) == (name, seq)
                    yield data
                    name, seq, data = b"message", None, b""
                case b"" if not data:
                    seq = None  # where the stream begins
    if name != b"message":
        assert (name, json.loads(data)["status"]) == (b"end", "success"), "the end is the last"


async def over_lines(server, run_id: str, asked: dict[str, str], *, slow: bool) -> AsyncIterator[bytes]:
    async with aclosing(_lines(server, run_id, asked, "application/x-ndjson", slow=slow)) as lines:
        async for line in lines:
            if line:
                assert not line.startswith(b'{"problem"'), line
                yield line


async def page_of(server, run_id: str, asked: dict[str, str]) -> dict[str, Raw]:
    """Return a page of a run's history, its members undecoded."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        path = path_of(run_id, asked, "events")
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head + body
        return decode(body, type=dict[str, Raw])
    finally:
        writer.close()


WAYS = (over_websocket, over_sse, over_lines)


async def _lines(
    server, run_id: str, asked: dict[str, str], accept: str, *, slow: bool
) -> AsyncIterator[bytes]:
    """Yield the lines of a body, which must have its proper end."""
    reader, writer = await asyncio.open_connection(
        sock=connected(server, slow=slow), limit=SLOW_BYTES if slow else 2**16
    )
    try:
        writer.write(
            f"GET {path_of(run_id, asked)} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: {accept}\r\n\r\n".encode()
        )
        status, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        if status.startswith(b"HTTP/1.1 204") and "event-stream" in accept:
            return
        assert status.startswith(b"HTTP/1.1 200"), status
        text = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            text += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
            *lines, text = text.split(b"\n")
            for line in lines:
                yield line
        assert text == b""
    finally:
        writer.close()
