"""WebSocket frames that no client should send, and handshakes that are none; streams are what they were."""

import asyncio
import base64
import os
import random
import struct
from collections.abc import Awaitable, Callable
from functools import partial

from tests.attacks.raw import Raw, all_of, connected
from tests.attacks.watched import MIB, Size, attacked, faults_after, stored, until
from tests.server import Server
from tests.wire.server import frames_of

W = "/api/v2/workflows"
GROWN_BYTES_MAX = 48 * MIB
ANSWER_S = 0.1
FRAMES_MAX = 30  # of one connection
CODES = {1000, 1002, 1003, 1005, 1007, 1008, 1009, 1011}  # with which a client's bad behaviour is answered
LINES = 300
SAY = f"for i in $(seq {LINES}); do echo line $i; sleep 0.01; done; sleep 3600"
HANDSHAKE = (
    "{method} {path} {version}\r\nHost: {host}\r\nUpgrade: {upgrade}\r\nConnection: {connection}\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {number}\r\n{more}\r\n"
)
# What is wrong with a handshake; each alone has to be refused, or is only odd where it says 101.
HANDSHAKES: list[tuple[dict[str, str], set[int]]] = [
    ({}, {101}),
    ({"connection": "keep-alive, UPGRADE", "upgrade": "WebSocket"}, {101}),
    ({"more": "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"}, {101}),
    ({"more": "Sec-WebSocket-Protocol: a, b, c\r\n"}, {101}),
    ({"more": "Sec-WebSocket-Extensions: " + "x;" * 4_000 + "\r\n"}, {101}),
    ({"key": ""}, {400}),
    ({"key": "short"}, {400}),
    ({"key": "dGhlIHNhbXBsZSBub25jZQ==" * 40}, {400}),
    ({"key": "\xff\xfe"}, {400}),
    ({"number": "8"}, {426}),
    ({"number": "13, 13"}, {426}),
    ({"number": "x" * 3_000}, {426}),
    ({"more": "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"}, {400}),
    ({"more": "Sec-WebSocket-Version: 13\r\n"}, {426}),
    ({"method": "POST", "more": "Content-Length: 0\r\n"}, {405}),
    ({"more": "Content-Length: 5\r\n"}, {400}),
    ({"more": "Upgrade: websocket\r\n"}, {400}),
    ({"more": "Sec-WebSocket-Protocol: a b\r\n"}, {400}),
    ({"more": "X: y\r\n" * 200}, {431}),
    ({"more": "Origin: https://evil.example\r\n"}, {403}),
    ({"more": "Origin: null\r\n"}, {403}),
    ({"host": "evil.example"}, {421}),
    ({"path": f"{W}/runs/nobody/stream"}, {404}),
    ({"path": f"{W}/runs/%00/stream"}, {404, 400}),
    ({"path": "/health"}, {404, 400}),
    ({"more": "X: " + "y" * 60_000 + "\r\n"}, {431}),
    ({"version": "HTTP/1.0"}, {400}),
    ({"upgrade": "h2c"}, {200}),
]  # fmt: skip


class Mischief:
    """Says everything to the stream of one run; ``seed`` decides what."""

    def __init__(self, server: Server, run_id: str, seed: int) -> None:
        self.server = server
        self.path = f"{W}/runs/{run_id}/stream"
        self.random = random.Random(seed)
        self.events: list[bytes] = []
        self.frames = 0

    def moves(self, count: int) -> list[Callable[[], Awaitable[str | None]]]:
        """Return moves that send about ``count`` frames, every handshake among them."""
        found: list[Callable[[], Awaitable[str | None]]] = [
            partial(self.shake_hands, *handshake) for handshake in HANDSHAKES
        ]
        found += [
            partial(self.misbehave, self.random.getrandbits(64)) for _ in range(count // (FRAMES_MAX // 2))
        ]
        self.random.shuffle(found)
        return found

    async def shake_hands(self, wrong: dict[str, str], statuses: set[int]) -> str | None:
        connection = await self._hello(**wrong)
        await connection.hears(5.0)
        status = int(connection.said[9:12] or 0)
        connection.leave()
        self.frames += 1
        if status in statuses:
            return None
        return f"the handshake {str(wrong)[:300]} was answered with {connection.said[:300]!r}"

    async def misbehave(self, seed: int) -> str | None:
        """Open a good connection and say bad things until it is closed or patience ends."""
        chance = random.Random(seed)
        connection = await self._hello()
        for _ in range(chance.randint(1, FRAMES_MAX)):
            await connection.send(any_frame(chance))
            self.frames += 1
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        if chance.random() < 0.2:
            connection.leave(reset=chance.random() < 0.5)
            return None
        await connection.send(frame(8, struct.pack(">H", 1000)))
        if chance.random() < 0.5:
            await connection.hears(ANSWER_S)
        connection.says_no_more()  # what came last may be the beginning of an endless frame
        said = await connection.listen()
        connection.leave()
        fault = self._unlike_us(said)
        return fault and f"seed {seed}: {fault}"

    def _unlike_us(self, said: bytes) -> str | None:
        """Return a fault unless this is a good handshake, the run's events in order, PONGs, and one close."""
        head, _, body = said.partition(b"\r\n\r\n")
        if not said:
            return None
        if not head.startswith(b"HTTP/1.1 101"):
            return f"answered with {head[:300]!r}"
        try:
            frames = frames_of(body)
        except (IndexError, AssertionError):
            return f"what it says is no frames: {body[-200:]!r}"
        events = [data for opcode, data in frames if opcode == 1]
        if events != self.events[: len(events)]:
            return f"{len(events)} events are not those of the run"
        closes = [data for opcode, data in frames if opcode == 8]
        if len(closes) > 1 or (closes and frames[-1][0] != 8):
            return f"a close was not the last frame: {[f for f in frames if f[0] != 1]}"
        if closes and len(closes[0]) >= 2 and int.from_bytes(closes[0][:2], "big") not in CODES:
            return f"closed with {closes[0]!r}"
        if closes and closes[0][:2] == struct.pack(">H", 1011) and b"on our side" in closes[0]:
            return f"a fault of ours: {closes[0]!r}"
        if {opcode for opcode, _ in frames} - {1, 8, 9, 10}:
            return "frames of other kinds"
        return None

    async def _hello(self, **wrong: str) -> Raw:
        good = {
            "method": "GET", "path": self.path, "version": "HTTP/1.1", "host": f"127.0.0.1:{self.server.port}",
            "upgrade": "websocket", "connection": "Upgrade", "key": base64.b64encode(os.urandom(16)).decode(),
            "number": "13", "more": "",
        }  # fmt: skip
        connection = await connected(self.server)
        await connection.send(HANDSHAKE.format(**good | wrong).encode("latin-1"))
        return connection


def any_frame(chance: random.Random) -> bytes:  # noqa: PLR0911  a table
    """Return a frame that is wrong in any way, or good."""
    data = chance.randbytes(chance.choice([0, 1, 2, 5, 125, 126, 127, 1_000, 4_096]))
    match chance.randrange(14):
        case 0 | 1:
            return frame(chance.choice([1, 2]), b"hello" * chance.randint(0, 20))  # what people type
        case 2:
            return frame(chance.choice([9, 10]), data[:125])
        case 3:
            return frame(chance.choice([9, 10, 8]), data)  # control frames have at most 125 bytes
        case 4:
            return frame(chance.randrange(16), data)
        case 5:
            return frame(chance.randrange(16), data, first=chance.choice([0x40, 0x20, 0x10, 0x70]))
        case 6:
            return frame(chance.choice([1, 2, 9]), data, masked=False)
        case 7:
            return frame(chance.choice([0, 1, 2]), data, fin=False)
        case 8:
            return frame(
                8,
                chance.choice([b"\x03", b"\0\0", b"\xff\xff", struct.pack(">H", 1006), b"\x03\xe8\xff\xfe"]),
            )
        case 9:
            return frame(1, chance.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\0"]))
        case 10:  # a length that nothing follows, up to the largest
            length = chance.choice([4_097, 65_535, 65_536, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
            head = bytes([0x80 | chance.randrange(16), 0xFF]) + length.to_bytes(8, "big")
            return head + b"mask" + data
        case 11:  # a length in more bytes than it needs
            return bytes([0x81, 0xFF]) + (5).to_bytes(8, "big") + b"\0\0\0\0hello"
        case 12:
            return frame(chance.choice([1, 2]), chance.randbytes(chance.randint(4_097, 70_000)))
        case _:
            return chance.randbytes(chance.randint(1, 300))


def frame(opcode: int, data: bytes, *, fin: bool = True, masked: bool = True, first: int = 0) -> bytes:
    """Return a client's frame."""
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | first | opcode])
    if len(data) < 126:
        head += bytes([mask_bit | len(data)])
    elif len(data) < 65_536:
        head += bytes([mask_bit | 126]) + len(data).to_bytes(2, "big")
    else:
        head += bytes([mask_bit | 127]) + len(data).to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + data


def run(count: int, seed: int) -> list[str]:
    """Send about ``count`` such frames; return what was answered otherwise than it should, or harmed others."""
    with attacked() as server:
        command = {"command": "sh", "args": ["-c", SAY]}
        server.create("say", {"steps": {"say": {"type": "command", "config": command}}})
        run_id = server.execute("say")
        assert until(lambda: len(stored(server, run_id)) >= LINES + 2, 60.0)
        mischief = Mischief(server, run_id, seed)
        mischief.events = stored(server, run_id)
        faults = asyncio.run(
            all_of(mischief.moves(2_000))
        )  # what the first thousands need once: code, caches
        before = Size.of(server)
        faults += asyncio.run(all_of(mischief.moves(count)))
        server.post(f"{W}/runs/{run_id}/cancel")
        server.finished(run_id)
        return faults + faults_after(server, before, grown_bytes_max=GROWN_BYTES_MAX)
