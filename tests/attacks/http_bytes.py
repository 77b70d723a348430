"""What HTTP must not be: slow, endless, contradictory, many at once, malformed, or no HTTP at all."""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from functools import partial

from tests.attacks.raw import all_of, connected
from tests.attacks.watched import MIB, Size, attacked, faults_after
from tests.server import Server

W = "/api/v2/workflows"
GROWN_BYTES_MAX = 48 * MIB
PIPELINED_MAX = 16  # that are answered
SLOW_MAX = 200
ANSWER_S = 0.3
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")

# Whatever else they are, none may be answered with a success, and none may hide a second request.
CONTRADICTIONS = [
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /health HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: 5, 5\r\n\r\nhello",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: +5\r\n\r\nhello",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: -1\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: 18446744073709551616\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nContent-Length: 9223372036854775807\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\nHost: evil\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "GET /health HTTP/1.1\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost : {h}\r\n\r\n",
    "GET /health HTTP/1.1\r\n Host: {h}\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\0\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\nX: a\0b\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\nX\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\n: x\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\nX(: y\r\n\r\n",
    "GET /hea lth HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "GET /health HTTP/9.9\r\nHost: {h}\r\n\r\n",
    "GET /health HTTX/1.1\r\nHost: {h}\r\n\r\n",
    "GET /health\r\n\r\n",
    "get /health HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "BREW /health HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "CONNECT example.com:443 HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSH-2.0-OpenSSH_9.2\r\n",
    "\r\n" * 5_000 + "x",
]
FLOODS = [
    "GET /health HTTP/1.1\r\nHost: {h}\r\n" + "X-Y: z\r\n" * 40_000 + "\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\nX: " + "y" * 200_000 + "\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: {h}\r\n" + "Z" * 200_000 + ": y\r\n\r\n",
    "GET /" + "a" * 200_000 + " HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "G" * 200_000,
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n1;" + "e" * 200_000,
    "POST {w}/validate HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + "T: r\r\n" * 40_000,
]
WHOLE = (
    "POST {w}/validate?a=b HTTP/1.1\r\nHost: {h}\r\nContent-Type: application/json\r\nX-Y: z\r\n"
    'Content-Length: 64\r\n\r\n{{"steps": {{"a": {{"type": "wait", "config": {{"duration": 1}}}}}}}}      '
)


class Speaker:
    """Makes requests that nobody should make of one service; ``seed`` decides which."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.words = {"h": f"127.0.0.1:{server.port}", "w": W}

    def moves(self, count: int) -> list[Callable[[], Awaitable[str | None]]]:
        """Return ``count`` moves in any order, every contradiction and flood among them at least once."""
        chance = self.random
        found = [partial(self.contradict, text) for text in CONTRADICTIONS]
        found += [partial(self.flood, text) for text in FLOODS]
        kinds = [
            self.mutated,
            self.mutated,
            self.noise,
            self.pipelined,
            self.torn_off,
            self.any_contradiction,
        ]
        while len(found) < count:
            found.append(partial(chance.choice(kinds), chance.getrandbits(64)))
        chance.shuffle(found)
        return found[:count]

    async def contradict(self, text: str) -> str | None:
        said = await self._ask(text.format(**self.words).encode("latin-1"))
        statuses = STATUS.findall(said)
        if [status for status in statuses if not status.startswith(b"4")] or len(statuses) > 1:
            return f"{text[:200]!r} was answered with {said[:600]!r}"
        return _unlike_us(text, said)

    async def any_contradiction(self, seed: int) -> str | None:
        return await self.contradict(random.Random(seed).choice(CONTRADICTIONS))

    async def flood(self, text: str) -> str | None:
        said = await self._ask(text.format(**self.words).encode())
        return _unlike_us(text, said) or (
            f"a flood of {text[:80]!r} got 200" if b" 200 " in said[:20] else None
        )

    async def mutated(self, seed: int) -> str | None:
        """A good request with some bytes changed, in any number of pieces."""
        chance = random.Random(seed)
        data = bytearray(WHOLE.format(**self.words).encode())
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(data))
            data[start : start + chance.randint(0, 6)] = chance.randbytes(chance.randint(0, 6))
        said = await self._ask(bytes(data), pieces=chance.choice([1, 1, 3, 40]))
        return _unlike_us(bytes(data), said)

    async def noise(self, seed: int) -> str | None:
        chance = random.Random(seed)
        data = chance.randbytes(chance.randint(1, 5_000))
        return _unlike_us(data, await self._ask(data))

    async def pipelined(self, seed: int) -> str | None:
        """So many requests in one write: all are answered, in order, or the connection is cut off."""
        count = random.Random(seed).choice([2, 10, PIPELINED_MAX, 50, 400])
        request = "GET {w}/runs/none-{n} HTTP/1.1\r\nHost: {h}\r\n{more}\r\n"
        more = [""] * (count - 1) + ["Connection: close\r\n"]
        sent = "".join(request.format(n=n, more=more[n], **self.words) for n in range(count))
        connection = await connected(self.server)
        await connection.send(sent.encode())
        said = await connection.listen()
        connection.leave()
        told = [int(n) for n in re.findall(rb"'none-(\d+)'", said)]
        if told != list(range(len(told))) or (count <= PIPELINED_MAX and len(told) != count):
            return f"{count} requests in one write were answered: {told}"
        return _unlike_us(count, said)

    async def torn_off(self, seed: int) -> str | None:
        """Leaves in the middle, with a reset."""
        connection = await connected(self.server)
        whole = WHOLE.format(**self.words).encode()
        await connection.send(whole[: random.Random(seed).randrange(len(whole))])
        connection.leave(reset=True)
        return None

    async def slow(self) -> str | None:
        """A byte now and then, for ever: slowloris."""
        connection = await connected(self.server)
        answer = asyncio.create_task(connection.listen())
        async with asyncio.timeout(60):
            for byte in WHOLE.format(**self.words).encode() * 100:
                if answer.done():
                    break
                await connection.send(bytes([byte]))
                await asyncio.sleep(0.5)
        connection.leave()
        said = await answer
        return None if said.startswith(b"HTTP/1.1 408 ") else f"slowloris was answered with {said[:300]!r}"

    async def _ask(self, data: bytes, *, pieces: int = 1) -> bytes:
        connection = await connected(self.server)
        size = -(-len(data) // pieces)
        for start in range(0, len(data), size):
            await connection.send(data[start : start + size])
            if pieces > 1:
                await asyncio.sleep(0)
        await connection.hears(ANSWER_S)  # our end might overtake the answer
        connection.says_no_more()
        said = await connection.listen()
        connection.leave()
        return said


def run(count: int, seed: int) -> list[str]:
    """Make ``count`` such requests, slow ones beside them; return what was answered otherwise than it should."""
    with attacked() as server:
        speaker = Speaker(server, seed)
        asyncio.run(all_of(speaker.moves(200)))  # what the first hundreds need once: code, caches
        before = Size.of(server)
        return asyncio.run(_attack(speaker, count)) + faults_after(
            server, before, grown_bytes_max=GROWN_BYTES_MAX
        )


async def _attack(speaker: Speaker, count: int) -> list[str]:
    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(speaker.slow()) for _ in range(min(SLOW_MAX, max(5, count // 50)))]
        faults = await all_of(speaker.moves(count))
        if speaker.server.get("/health").status != 200:  # while the slow ones are there
            faults.append("nobody else is served")
    return faults + [fault for task in slow if (fault := task.result()) is not None]


def _unlike_us(sent: object, said: bytes) -> str | None:
    """Return a fault unless an answer, if there is one, is whole HTTP, no 5xx, and a problem if it refuses."""
    if not said:
        return None
    found = STATUS.match(said)
    head = said.partition(b"\r\n\r\n")[0].lower()
    if (
        found is None
        or found[1][:1] == b"5"
        or (found[1][:1] == b"4" and b"application/problem+json" not in head)
    ):
        return f"{str(sent)[:400]} was answered with {said[:500]!r}"
    return None
