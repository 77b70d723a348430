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


async def test_every_byte_comes_once_and_in_order_to_the_end(ends):
    pipe, far = ends
    whole = os.urandom(3 * READ_BYTES)

    def write() -> None:
        rest = memoryview(whole)
        while rest:
            rest = rest[os.write(far, rest[:7_777]) :]
        os.close(far)

    writing = asyncio.create_task(asyncio.to_thread(write))
    got = bytearray()
    while data := await pipe.read():
        got += data
    assert got == whole
    assert await pipe.read() == b"", "again"
    await writing


async def test_a_read_that_is_given_up_has_taken_nothing(ends):
    pipe, far = ends
    reading = asyncio.create_task(pipe.read())
    await asyncio.sleep(0)
    reading.cancel()
    os.write(far, b"still here")
    await asyncio.wait([reading])
    await asyncio.sleep(0.02)
    assert await pipe.read() == b"still here"


async def test_while_nobody_reads_the_loop_is_left_alone(ends, monkeypatch):
    pipe, far = ends
    calls = []
    on_readable = Pipe._on_readable
    monkeypatch.setattr(Pipe, "_on_readable", lambda self: calls.append(1) or on_readable(self))
    os.write(far, b"one")
    assert await pipe.read() == b"one"
    os.write(far, b"two")
    await asyncio.sleep(0.05)
    assert len(calls) <= 2, "a pipe that is not read from must not wake the loop again and again"
    assert await pipe.read() == b"two"


async def test_finished_it_ends_with_what_is_in_it_although_the_other_end_is_open(ends):
    pipe, far = ends
    reading = asyncio.create_task(pipe.read())
    await asyncio.sleep(0)
    os.write(far, b"x" * (READ_BYTES // 2))
    pipe.finish()
    assert await reading == b"x" * (READ_BYTES // 2)
    os.write(far, b"more")
    assert await pipe.read() == b"more"
    assert await pipe.read() == b""


async def test_finished_while_somebody_waits_it_ends(ends):
    pipe, _ = ends
    reading = asyncio.create_task(pipe.read())
    await asyncio.sleep(0)
    pipe.finish()
    assert await reading == b""
