"""Many raw connections at a time, each of which says what it likes and listens until it is shut out."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from tests.server import Server

AT_ONCE = 24
ANSWER_TIMEOUT_S = 90.0  # the service's own longest deadline for a request is 60 s


class Raw:
    """One connection; ``said`` is all that the service has answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.said = b""

    async def send(self, data: bytes) -> None:
        """Send what the service still takes."""
        if self._writer.transport.is_closing():
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            pass

    async def hears(self, timeout_s: float) -> bool:
        """Say whether anything is answered in time."""
        try:
            async with asyncio.timeout(timeout_s):
                self.said += await self._reader.read(65_536)
        except (TimeoutError, OSError):
            pass
        return bool(self.said)

    async def listen(self) -> bytes:
        """Return all that has been said once the connection is over."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                try:
                    data = await self._reader.read(65_536)
                except OSError:
                    break
                if not data:
                    break
                self.said += data
        return self.said

    def says_no_more(self) -> None:
        """Shut down our side: the service sees an end, and may still answer."""
        if not self._writer.transport.is_closing():
            try:
                self._writer.write_eof()
            except OSError:
                pass

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, or tear it off."""
        if reset and not self._writer.transport.is_closing():
            one: socket.socket = self._writer.get_extra_info("socket")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        self._writer.close()


async def connected(server: Server) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", server.port))


async def all_of(moves: list[Callable[[], Awaitable[str | None]]]) -> list[str]:
    """Make every move, some at a time, and return the faults that they have found."""
    left = iter(moves)
    faults: list[str] = []

    async def some() -> None:
        for move in left:
            fault = await move()
            if fault is not None:
                faults.append(fault)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    return faults
