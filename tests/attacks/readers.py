"""Slow and stuck readers beside healthy ones: nobody else notices, and the stuck know how to go on.

All read one run while it is written. A quarter of the others takes nothing at all, the rest little at a time.
"""

import os
import random
import re
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from service.wire.frames import text_frame
from tests.attacks.watched import MIB, Size, attacked, ended_requests, regrets, stored, until
from tests.server import Server

EVENTS = 2_000  # of about 700 bytes: several times what may be on its way to one reader
STALL_S = 10  # healthy readers need a small part of it
DEADLINE_S = 120.0
SLOW_BYTES, SLOW_EVERY_S = 4096, 0.05
GROWN_BYTES_MAX = 64 * MIB
BUFFER_BYTES = 4096  # of the others' sockets
CLOSE = re.compile(rb"\x88.[\x03\x11].(?:run|no progress) [ -~]+$", re.DOTALL)
STUCK_END = re.compile(rb"\x88.(?:\x11\x38)no progress for 10 s; resume with after=(\d+)$", re.DOTALL)

FIRST_SEQ = 2  # the step's start, and the line that says so, come first

# Writes in bursts of any size, half of it once everybody is there, and ends when it is told to.
SAY = """
import random, sys, time
from pathlib import Path
count, go = int(sys.argv[1]), Path(sys.argv[2])
for n in range(count):
    if n == count // 2:
        while not go.with_name("begin").exists():
            time.sleep(0.01)
    print(f"{n:06d}", "x" * 500, flush=n % 50 == 0)
sys.stdout.flush()
go.read_text()
print("last")
"""


class Reader:
    """A client of the stream that reads as it is told to; knows how much it has, and its SHA-256."""

    def __init__(self, server: Server, run_id: str, *, after: int = 0, buffer_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(("127.0.0.1", server.port))
        path = f"/api/v2/workflows/runs/{run_id}/stream" + (f"?after={after}" if after else "")
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        self.socket.setblocking(False)
        self.bytes = 0
        self.digest = sha256()
        self.end = b""  # the newest bytes
        self.over = False
        self.next_at = 0.0

    def take(self, bytes_max: int = 262_144) -> None:
        """Take what there is, at most so much."""
        try:
            data = self.socket.recv(bytes_max)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.bytes += len(data)
        self.digest.update(data)
        self.end = (self.end + data)[-200:]
        self.over = not data or CLOSE.search(self.end) is not None


def read(readers: list[Reader], enough: Callable[[], bool], slow: list[Reader] = []) -> bool:
    """Let ``readers`` take all they can, and ``slow`` a little now and then, until there is enough."""
    deadline = time.monotonic() + DEADLINE_S
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            if not reader.over:
                selector.register(reader.socket, selectors.EVENT_READ, reader)
        while not enough():
            if time.monotonic() > deadline:
                return False
            for key, _ in selector.select(SLOW_EVERY_S):
                key.data.take()
                if key.data.over:
                    selector.unregister(key.data.socket)
            for reader in slow:
                if not reader.over and time.monotonic() >= reader.next_at:
                    reader.take(SLOW_BYTES)
                    reader.next_at = time.monotonic() + SLOW_EVERY_S
    return True


def run(count: int, seed: int) -> list[str]:
    """Let ``count`` healthy readers and a tenth as many others read one run; return what went wrong."""
    chance = random.Random(seed)
    others = max(4, count // 10)
    with attacked(TAILRACE_STALL_TIMEOUT_S=STALL_S) as server:
        go = server.db.with_name("go")
        os.mkfifo(go)
        command = {"command": sys.executable, "args": ["-c", SAY, str(EVENTS), str(go)]}
        server.create("say", {"steps": {"say": {"type": "command", "config": command}}})
        run_id = server.execute("say")
        kinds = ["healthy"] * count + ["stuck"] * (others // 2) + ["slow"] * (others - others // 2)
        chance.shuffle(kinds)
        crowd: dict[str, list[Reader]] = {"healthy": [], "stuck": [], "slow": []}
        for kind in kinds:
            crowd[kind].append(Reader(server, run_id, buffer_bytes=0 if kind == "healthy" else BUFFER_BYTES))
        try:
            return list(_faults(server, run_id, go, **crowd)) + regrets(server)
        finally:
            for reader in sum(crowd.values(), []):
                reader.socket.close()


def _faults(
    server: Server, run_id: str, go: Path, healthy: list[Reader], stuck: list[Reader], slow: list[Reader]
) -> Iterator[str]:
    before = Size.of(server)
    go.with_name("begin").touch()
    written = FIRST_SEQ + EVENTS  # so many events there are before the command is let go on
    assert until(lambda: len(stored(server, run_id)) >= written, DEADLINE_S)
    expected = frames(server, run_id)
    if not read(healthy, lambda: all(reader.bytes >= len(expected) for reader in healthy), slow):
        yield "healthy readers have not got what was written"
    if over := ended_requests(server, f"{run_id}/stream"):
        yield f"{over} readers were closed before the healthy ones had everything"
    if not read(healthy, lambda: ended_requests(server, f"{run_id}/stream") >= len(stuck), slow):
        yield "the stuck readers were not closed"
    grown = Size.of(server).rss_bytes - before.rss_bytes
    if grown > GROWN_BYTES_MAX:
        yield f"the service has grown by {grown / MIB:.0f} MiB"
    yield from _faults_of_stuck(server, run_id, stuck, expected)
    go.write_text("on")
    if not read(healthy + slow, lambda: all(reader.over for reader in healthy + slow)):
        yield "the stream has not ended for everybody"
    expected = frames(server, run_id)
    close = close_frame(1000, f"run success lastSeq={len(stored(server, run_id))}")
    wanted = sha256(expected + close).digest()
    for name, readers in (("healthy", healthy), ("slow", slow)):
        if wrong := [reader.bytes for reader in readers if reader.digest.digest() != wanted]:
            yield f"{len(wrong)} {name} readers got something else: {wrong[:5]} of {len(expected + close)} bytes"


def _faults_of_stuck(server: Server, run_id: str, stuck: list[Reader], expected: bytes) -> Iterator[str]:
    """What a stuck reader finds when it reads at last: the beginning, then a close that says where to go on."""
    read(stuck, lambda: all(reader.over for reader in stuck))
    for reader in stuck:
        told = STUCK_END.search(reader.end)
        if told is None:
            yield f"a stuck reader was not told where to go on: {reader.end!r}"
            continue
        after = int(told[1])
        events = stored(server, run_id)
        got = b"".join(map(text_frame, events[:after]))
        if reader.bytes != len(got) + len(told[0]) or not expected.startswith(got):
            yield f"a stuck reader was told after={after} and had {reader.bytes} bytes, not {len(got)} of events"
        again = Reader(server, run_id, after=after)
        rest = expected[len(got) :]
        if (
            not read([again], lambda: again.bytes >= len(rest))
            or again.digest.digest() != sha256(rest).digest()
        ):
            yield f"after={after} did not go on where it had ended"
        again.socket.close()


def frames(server: Server, run_id: str) -> bytes:
    """Return a run's step events as the stream sends them."""
    return b"".join(map(text_frame, stored(server, run_id)))


def close_frame(code: int, reason: str) -> bytes:
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes([0x88, len(payload)]) + payload
