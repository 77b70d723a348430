"""A TCP proxy that cuts connections: put between a client and the service, it tries how well the client resumes.

It knows nothing of WebSockets or HTTP; whatever is sent through it is bytes.
"""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from random import Random
from typing import NamedTuple, Self

RESET = "reset"  # RST (SO_LINGER 0) behind any byte: what is still on its way is lost, too
END = "end"  # FIN behind all that the server had sent: as a rule behind a whole frame
HALF = "half"  # FIN before the last byte that the server had sent, or earlier: in the midst of a frame
KINDS = (RESET, END, HALF)

HEAD_SHARE = 1 / 8  # of connections that are cut within the answer's head, before any event
HEAD_BYTES = 120  # a head of ours is longer
CHUNK_BYTES = 64 * 1024
LEAVE_TIMEOUT_S = 5.0  # for a client to close its side after a FIN


class Cut(NamedTuple):
    """A cut that was made: how, and after how many bytes from server to client."""

    kind: str
    after_bytes: int


class CuttingProxy:
    """``with CuttingProxy(server.port, seed=1, bytes_max=4096, cuts_max=100) as proxy:`` and connect to ``proxy.port``.

    Each connection is cut, RESET, END and HALF by turns, at a byte between server and client that ``seed``
    chooses: at most ``bytes_max`` after its begin, so that must hold a head and some events, or no client can
    ever make progress. A connection that ends before its byte is not cut. After ``cuts_max`` cuts everything
    is let through. ``made`` lists the cuts, ``cuts`` counts them. It listens on 127.0.0.1 in a thread of its
    own, so any client can come, of this process or another; the service must know its address
    (``Server(tmp_path, TAILRACE_HOSTS="127.0.0.1")``) and may be restarted meanwhile on the same port.
    """

    def __init__(self, target_port: int, *, seed: int, bytes_max: int, cuts_max: int) -> None:
        self.port = 0
        self.made: list[Cut] = []
        self._target_port = target_port
        self._random = Random(seed)
        self._bytes_max = bytes_max
        self._cuts_max = cuts_max
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def cuts(self) -> int:
        return len(self.made)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        assert self.port, "the proxy could not listen"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._listen())
        finally:
            self._ready.set()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()  # the runner cancels the connections

    async def _connection(self, reader: StreamReader, writer: StreamWriter) -> None:
        writers = [writer]
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            writers.append(server_writer)
            up = asyncio.create_task(_copy(reader, server_writer))
            try:
                await self._down(server_reader, writer)
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await up
            finally:
                up.cancel()
        except (OSError, TimeoutError):
            pass  # either side went away: so does the other
        finally:
            for each in writers:
                each.transport.abort()

    async def _down(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Copy from server to client up to the cut or the end; then the client has its FIN or RST."""
        cut_at = self._random.randrange(HEAD_BYTES if self._random.random() < HEAD_SHARE else self._bytes_max)
        writer.transport.set_write_buffer_limits(0)  # drained means: handed to the kernel
        copied = 0
        while chunk := await reader.read(CHUNK_BYTES):
            if copied + len(chunk) > cut_at and self.cuts < self._cuts_max:
                await self._cut(chunk, copied, cut_at, writer)
                return
            copied += len(chunk)
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()

    async def _cut(self, chunk: bytes, copied: int, cut_at: int, writer: StreamWriter) -> None:
        kind = KINDS[self.cuts % len(KINDS)]
        left = chunk if kind == END else chunk[: cut_at - copied]
        self.made.append(Cut(kind, copied + len(left)))
        writer.write(left)
        await writer.drain()
        if kind == RESET:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.write_eof()


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass  # the other direction sees it as well
