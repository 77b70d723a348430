"""What is on its way to one client: how much it may be, and whether the client takes it.

Knows sockets and clocks, nothing of HTTP, frames or events.
"""

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable

# Together with what one write may leave to the transport they keep a client's bytes in flight under 256 KiB:
# the kernel doubles SO_SNDBUF for its own book-keeping and overshoots it by up to one segment. Nearly all is
# the kernel's, which sends from there without us: a full stretch of a replay fits.
KERNEL_BYTES = 104 * 1024
HIGH_WATER_BYTES = 1  # with 0, uvloop pauses a TLS connection that has nothing to send, for ever
PIECE_BYTES_MAX = 48 * 1024

EXTENSION = "tailrace.outgoing"  # in scope["extensions"] of our protocols; the value is an Outgoing
STALL_TIMEOUT_S = 60.0
STALLED = 4408  # the close code of who takes nothing for so long
CHECKS_PER_TIMEOUT = 8  # how finely a timeout is watched: it fires at most an eighth late

_TCP_INFO_BYTES = 256
_BYTES_ACKED_AT = 120  # of struct tcp_info: a u64 that only grows


class Outgoing:
    """Bounds what is in flight on ``transport`` and tells whether its reader takes anything.

    ``now`` is a monotonic clock in seconds. ``stall_timeout_s`` and ``stall_reason`` belong to whoever
    answers on this connection: how long a reader may take nothing at all, and what to tell it then.
    ``gave_up`` is the close code with which its protocol has given up on the reader, 0 until it does.
    """

    __slots__ = (
        "_descriptor", "_moved_at", "_now", "_socket", "_taken", "gave_up", "stall_reason",
        "stall_timeout_s", "transport",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, now: Callable[[], float]) -> None:
        self.transport = transport
        self.stall_timeout_s = STALL_TIMEOUT_S
        self.gave_up = 0
        self.stall_reason: Callable[[], str] = lambda: "no progress"
        self._now = now
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        # Of a socket that carries the bytes as they are: below TLS nobody else may write.
        plain = self._socket is not None and transport.get_extra_info("sslcontext") is None
        self._descriptor = self._socket.fileno() if self._socket is not None and plain else -1
        self._taken: int | None = None  # when it was last asked for
        self._moved_at = now()
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=0)
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)

    def write_now(self, data: bytes | memoryview) -> int:
        """Give the kernel what it takes of ``data`` and return how much; 0 while something waits before it.

        The transport would only send it at the end of the loop's turn. It must not be closing: its descriptor
        may be somebody else's already.
        """
        if self._descriptor < 0 or self.transport.get_write_buffer_size():
            return 0
        try:
            return os.write(self._descriptor, data)
        except OSError:  # full; anything else the transport meets as well, and knows whom to tell
            return 0

    def unsent(self) -> int:
        """Return the bytes that were written and that the client's side has not acknowledged."""
        return self.transport.get_write_buffer_size() + self._kernel_unsent()

    def moved_at(self) -> float:
        """Return when the client last took something, or now when nothing waits for it.

        A change is noticed when it is asked for: ask every few seconds.
        """
        unsent = self.unsent()
        if unsent == 0:  # nearly always: then to ask for more is dear, with ten thousand connections
            self._taken = None
            self._moved_at = self._now()
            return self._moved_at
        taken = self._acknowledged()
        if taken is None:
            taken = -unsent  # no TCP_INFO here: any change of the backlog is progress
        if self._taken not in {None, taken}:
            self._moved_at = self._now()
        self._taken = taken
        return self._moved_at

    def cut_off(self) -> None:
        """Drop the connection and, with a reset, what the kernel still holds for it."""
        if self._socket is not None and self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _kernel_unsent(self) -> int:
        if self._socket is None or self._socket.fileno() < 0:
            return 0
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))
        except OSError:
            return 0
        return int(count)

    def _acknowledged(self) -> int | None:
        if self._socket is None or self._socket.fileno() < 0:
            return None
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return None
        if len(info) < _BYTES_ACKED_AT + 8:
            return None
        return int(struct.unpack_from("=Q", info, _BYTES_ACKED_AT)[0])
