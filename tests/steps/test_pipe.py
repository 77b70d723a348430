"""A pipe gives what is in it, waits for what is not, and costs nothing while nobody takes from it."""

import asyncio
import os

import pytest

from service.steps.pipe import READ_BYTES, Pipe


@pytest.fixture
async def ends():
    out, far = os.pipe()
    pipe = Pipe(out)
    yield pipe, far
    pipe.close()
    try:
        os.close(far)
    except OSError:
        pass


async def give(pipe, take):
    async with asyncio.timeout(20):
        return await pipe.give(take)


class Taken:
    """Keeps what a pipe gives; ``enough`` chunks are all it wants at once."""

    def __init__(self, enough: int = 1_000_000) -> None:
        self.data = bytearray()
        self.chunks = 0
        self.enough = enough

    def __call__(self, data: bytes) -> bool:
        self.data += data
        self.chunks += 1
        return self.chunks < self.enough


async def test_every_byte_comes_once_and_in_order_to_the_end(ends):
    pipe, far = ends
    whole = os.urandom(3 * READ_BYTES)

    def write() -> None:
        rest = memoryview(whole)
        while rest:
            rest = rest[os.write(far, rest[:7_777]) :]
        os.close(far)

    writing = asyncio.create_task(asyncio.to_thread(write))
    taken = Taken()
    assert await give(pipe, taken) is False
    assert taken.data == whole
    assert await give(pipe, taken) is False, "again"
    assert taken.data == whole
    await writing


async def test_who_wants_no_more_is_given_the_rest_when_it_asks(ends):
    pipe, far = ends
    taken = Taken(enough=1)
    for text in (b"one", b"two", b"three"):
        os.write(far, text)
        assert await give(pipe, taken) is True
        assert taken.data.endswith(text)
    os.close(far)
    assert await give(pipe, taken) is False
    assert taken.data == b"onetwothree"


async def test_what_is_given_up_has_taken_nothing_more(ends):
    pipe, far = ends
    first, second = Taken(), Taken(enough=1)
    giving = asyncio.create_task(give(pipe, first))
    await asyncio.sleep(0)
    giving.cancel()
    os.write(far, b"still here")
    await asyncio.wait([giving])
    await asyncio.sleep(0.02)
    assert await give(pipe, second) is True
    assert (first.data, second.data) == (b"", b"still here")


async def test_while_nobody_takes_the_loop_is_left_alone(ends, monkeypatch):
    pipe, far = ends
    calls = []
    on_readable = Pipe._on_readable
    monkeypatch.setattr(Pipe, "_on_readable", lambda self: calls.append(1) or on_readable(self))
    os.write(far, b"one")
    assert await give(pipe, Taken(enough=1)) is True
    os.write(far, b"two")
    await asyncio.sleep(0.05)
    assert len(calls) <= 2, "a pipe that is not read from must not wake the loop again and again"
    taken = Taken(enough=1)
    assert await give(pipe, taken) is True
    assert taken.data == b"two"


async def test_finished_it_ends_with_what_is_in_it_although_the_other_end_is_open(ends):
    pipe, far = ends
    taken = Taken()
    giving = asyncio.create_task(give(pipe, taken))
    await asyncio.sleep(0)
    os.write(far, b"x" * (READ_BYTES // 2))
    pipe.finish()
    assert await giving is False
    assert taken.data == b"x" * (READ_BYTES // 2)
    os.write(far, b"more")
    assert await give(pipe, taken) is False
    assert taken.data.endswith(b"xmore")


async def test_finished_while_somebody_waits_it_ends(ends):
    pipe, _ = ends
    taken = Taken()
    giving = asyncio.create_task(give(pipe, taken))
    await asyncio.sleep(0)
    pipe.finish()
    assert await giving is False
    assert taken.chunks == 0


async def test_what_the_taker_raises_is_raised_to_who_gives(ends):
    pipe, far = ends
    os.write(far, b"one")

    def take(data: bytes) -> bool:
        raise ZeroDivisionError(data)

    with pytest.raises(ZeroDivisionError):
        await give(pipe, take)
    os.write(far, b"two")
    taken = Taken(enough=1)
    assert await give(pipe, taken) is True
    assert taken.data == b"two"


async def test_what_is_given_up_as_the_pipe_is_finished_has_taken_nothing(ends):
    pipe, far = ends
    first, second = Taken(), Taken()
    giving = asyncio.create_task(give(pipe, first))
    await asyncio.sleep(0)
    os.write(far, b"still here")
    pipe.finish()
    giving.cancel()
    await asyncio.wait([giving])
    assert await give(pipe, second) is False
    assert (first.data, second.data) == (b"", b"still here")
