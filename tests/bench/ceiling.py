"""The ceiling of a replay: ready frames from memory through a bare socket, nothing in between.

They are the very bytes that a replay of the same run sends, 42 MB of them and none twice, so they come from
memory and not from a cache of the processor; one call gives them all to the kernel, which buffers as much as
it likes (up to 4 MB, where the service keeps to 256 KiB). The client is the one that counts replays.
"""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
CLOSE = b"\x88\x02\x03\xe8"  # 1000


def framed(events: Sequence[bytes]) -> bytes:
    """Return ``events`` as text frames, as a server sends them."""
    parts: list[bytes] = []
    for event in events:
        size = len(event)
        parts.append(b"\x81" + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")))
        parts.append(event)
    return b"".join(parts)


@contextmanager
def raw_sender(frames: bytes) -> Iterator[int]:
    """Send ``frames`` and a close to whoever connects, and give the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    accepting = threading.Thread(target=_accept, args=(listener, frames), daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()


def _accept(listener: socket.socket, frames: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_send, args=(connection, frames), daemon=True).start()


def _send(connection: socket.socket, frames: bytes) -> None:
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        connection.sendall(HEAD)
        connection.sendall(frames)
        connection.sendall(CLOSE)
        connection.recv(4096)  # until the client has gone
