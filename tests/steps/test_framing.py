"""An upstream whose framing has no end fails its own step and costs the service no more than that."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest

from service.steps import Outcome
from service.steps.framing import HEAD_BYTES_MAX
from service.steps.http import Http
from tests.steps.attempts import attempt

BUFFERS = 32 * 1024 * 1024  # what kernels on both sides may hold, and more
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Talker:
    """Answers every request in its own words and counts the bytes that it got rid of."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.connections = 0
        self.cut_off = asyncio.Event()

    async def came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self.talk(writer)
        except (OSError, asyncio.IncompleteReadError):
            self.cut_off.set()
        finally:
            writer.close()


@asynccontextmanager
async def asked(talk: Talk) -> AsyncIterator[tuple[Talker, Callable[[], Awaitable[Outcome]]]]:
    talker = Talker(talk)
    http = Http(http_allow=("127.0.0.1",))
    server = await asyncio.start_server(talker.came, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    async def ask() -> Outcome:
        async with asyncio.timeout(60):
            return await http.run(attempt({"url": url, "timeout": "30s"}))

    try:
        yield talker, ask
    finally:
        await http.close()
        server.close()


def without_end(first: bytes, then: bytes) -> Talk:
    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(0.1)
        for _ in range(BUFFERS // len(then)):
            writer.write(then)
            await writer.drain()

    return talk


def all_of(answer: bytes, piece: int | None = None) -> Talk:
    async def talk(writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(answer), piece or len(answer)):
            writer.write(answer[at : at + (piece or len(answer))])
            await writer.drain()
            if piece is not None:
                await asyncio.sleep(0)

    return talk


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", CONTINUE * 2_600),
        (b"", (b"HTTP/1.1 103 Early Hints\r\nlink: <" + b"a" * 4_000 + b">\r\n\r\n") * 16),
        (CHUNKED + b"1;", b"a=b;" * 16_000),
        (CHUNKED.replace(b"200", b"500") + b"1;", b"a=b;" * 16_000),
        (CHUNKED, b"1\r\na\r\n" * 10_000),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10],
            b"\0\0\0\xff\xff" * 13_000,
        ),
    ],
    ids=["1xx", "early hints", "chunk extensions", "of an error", "byte by byte", "empty blocks"],
)
async def test_framing_without_end_is_a_bad_response(first: bytes, then: bytes) -> None:
    async with asked(without_end(first, then)) as (talker, ask):
        outcome = await ask()
        assert outcome.error is not None
        assert outcome.error.code == "bad_response"
        async with asyncio.timeout(20):
            await talker.cut_off.wait()


async def test_what_comes_after_an_answer_ends_its_connection() -> None:
    async with asked(without_end(WHOLE, WHOLE * 1_600)) as (talker, ask):
        outcome = await ask()
        assert outcome.status == "success"
        async with asyncio.timeout(8):
            await talker.cut_off.wait()
        assert (await ask()).status == "success"
        assert talker.connections == 2


async def test_a_patient_server_is_heard_out() -> None:
    random = Random(5)
    text = bytes(random.choices(b"abcdefgh", k=400_000))
    bytewise = b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"
    hints = CONTINUE * 20 + b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100
    long_head = b"HTTP/1.1 200 OK\r\n" + b"".join(
        b"x-%d: %s\r\n" % (at, b"y" * 2_000) for at in range(HEAD_BYTES_MAX // 2_100)
    )
    answers = {
        CHUNKED + bytewise: text,
        hints + WHOLE: b"{}",
        long_head + b"content-length: 2\r\n\r\nok": b"ok",
        b"HTTP/1.1 204 No Content\r\n\r\n": b"",
    }
    for answer, body in answers.items():
        for piece in (None, 60_000):
            async with asked(all_of(answer, piece)) as (talker, ask):
                for _ in range(3):
                    outcome = await ask()
                    assert outcome.status == "success", (outcome.error, answer[:60])
                    got = outcome.document["response"]["body"]
                    assert got == body.decode() or (got == {} and body == b"{}")
                assert talker.connections == 1  # kept for reuse, each time from the beginning
