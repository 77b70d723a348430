"""The reading end of a pipe: what a command writes, chunk by chunk, as fast as somebody takes it."""

import asyncio
import fcntl
import os
from collections.abc import Callable

PIPE_BYTES = 256 * 1024  # fewer wake-ups than with the kernel's 64 KiB
READ_BYTES = 256 * 1024

# What was read last, whoever read it: fresh memory for each read would cost more than the read.
_room = bytearray(READ_BYTES)


class Pipe:
    """Reads from ``fd``, which it owns. What nobody takes stays in the pipe, and its writer waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._finished = False
        self._given: asyncio.Future[bool] | None = None
        self._take: Callable[[bytes], bool] = lambda _: False
        os.set_blocking(fd, False)
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # over the user's quota of pipe memory: the kernel's size will do

    async def give(self, take: Callable[[bytes], bool]) -> bool:
        """Give each chunk to ``take``, with a turn of the loop before each, until it wants no more.

        Returns True then, and False at the end. What ``take`` raises is raised here. For one at a time.
        """
        # No task is woken for a chunk: with a thousand commands that say a line now and then, it costs as
        # much as the line.
        loop = asyncio.get_running_loop()
        self._take, self._given = take, loop.create_future()
        if self._finished:
            loop.call_soon(self._on_readable)
        else:
            loop.add_reader(self._fd, self._on_readable)
        try:
            return await self._given
        finally:
            self._given = None
            loop.remove_reader(self._fd)

    def finish(self) -> None:
        """Make the end come with what is in the pipe by now, even if somebody holds its other end."""
        self._finished = True
        if self._given is not None:
            loop = self._given.get_loop()
            loop.remove_reader(self._fd)
            loop.call_soon(self._on_readable)

    def close(self) -> None:
        """Close the pipe. Nobody may be given anything at present."""
        os.close(self._fd)

    def _on_readable(self) -> None:
        given = self._given
        if given is None or given.done():
            return  # within this turn it has been given up, or had enough
        try:
            data = self._read()
            if data is None:
                if self._finished:
                    given.set_result(False)
            elif not data:
                given.set_result(False)
            elif not self._take(data):
                given.set_result(True)
            elif self._finished:
                given.get_loop().call_soon(self._on_readable)
        except Exception as error:  # noqa: BLE001  raised where it is awaited
            given.set_exception(error)

    def _read(self) -> bytes | None:
        """Return what there is, ``b""`` at the end, None if nothing is there yet."""
        try:
            count = os.readv(self._fd, [_room])
        except BlockingIOError:
            return None
        return bytes(memoryview(_room)[:count])
