"""The reading end of a pipe: what a command writes, chunk by chunk, as fast as somebody takes it."""

import asyncio
import fcntl
import os

PIPE_BYTES = 256 * 1024  # fewer wake-ups than with the kernel's 64 KiB
READ_BYTES = 256 * 1024

# What was read last, whoever read it: fresh memory for each read would cost more than the read.
_room = bytearray(READ_BYTES)


class Pipe:
    """Reads from ``fd``, which it owns. What nobody takes stays in the pipe, and its writer waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._finished = False
        self._waiter: asyncio.Future[bytes] | None = None
        self._watching: asyncio.AbstractEventLoop | None = None
        os.set_blocking(fd, False)
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # over the user's quota of pipe memory: the kernel's size will do

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. The loop has a turn in between."""
        if self._finished:
            await asyncio.sleep(0)
            return self._read() or b""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if self._watching is None:
            self._watching = loop
            loop.add_reader(self._fd, self._on_readable)
        return await self._waiter

    def finish(self) -> None:
        """Make the end come with what is in the pipe by now, even if somebody holds its other end."""
        self._finished = True
        self._stop_watching()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._read() or b"")

    def close(self) -> None:
        """Close the pipe."""
        self._stop_watching()
        os.close(self._fd)

    def _on_readable(self) -> None:
        # Watched all the time: to begin and end it for every line costs more than the line.
        if self._waiter is None or self._waiter.done():
            self._stop_watching()
            return
        data = self._read()
        if data is not None:
            self._waiter.set_result(data)

    def _read(self) -> bytes | None:
        """Return what there is, ``b""`` at the end, None if nothing is there yet."""
        try:
            count = os.readv(self._fd, [_room])
        except BlockingIOError:
            return None
        return bytes(memoryview(_room)[:count])

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.remove_reader(self._fd)
            self._watching = None
