"""The WebSocket protocol: liveness, floods, what is too large, and the end of every connection."""

import asyncio
import json
import re
import socket
import time

import pytest
from websockets.asyncio.client import connect

from tests.wire.server import (
    START,
    client_frame,
    close_of,
    frames_of,
    read_all,
    read_head,
    seal,
    service,
    step_log,
    upgrade,
)

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def running(request):
    with service(loop=request.param) as running:
        yield running


@pytest.fixture
async def client(running, request):
    """A raw client of a run that has one event and goes on."""
    run_id = re.sub(r"\W", "_", request.node.name, flags=re.ASCII)[:120]
    await running.write_run(1, sealed=False, run_id=run_id)
    client = upgrade(running, run_id)
    assert read_head(client).startswith(b"HTTP/1.1 101 ")
    with client:
        yield client


def heard(client: socket.socket) -> tuple[list[tuple[int, bytes]], tuple[int, str]]:
    frames = frames_of(read_all(client))
    return frames, close_of(frames)


async def test_what_a_client_says_is_ignored(running, client):
    client.sendall(
        client_frame(TEXT, b"hello") + client_frame(BINARY, b"\xff") * 20 + client_frame(PING, b"p")
    )
    client.sendall(client_frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"))
    frames, close = heard(client)
    opcodes = [opcode for opcode, _ in frames]
    assert opcodes[-1] == CLOSE
    assert set(opcodes[:-1]) <= {TEXT, PONG}  # the application's own text comes before or after the PONG
    assert [data for opcode, data in frames if opcode == PONG] == [b"p"]
    assert close == (1000, "bye")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (client_frame(TEXT, b"x" * 4096), None),
        (client_frame(TEXT, b"x" * 4097), 1009),
        (client_frame(TEXT, b"x" * 200_000), 1009),
        (client_frame(BINARY, b"x" * 3000, fin=False) + client_frame(0, b"x" * 2000), 1009),
        (client_frame(TEXT, b"x") * 256, None),
        (client_frame(TEXT, b"") * 257, 1008),
        (client_frame(PING, b"") * 5000, 1008),
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(TEXT, b"\xff", fin=False), 1007),
        (client_frame(TEXT, "é".encode()[:1]), 1007),
        (client_frame(TEXT, "é".encode()[:1], fin=False) + client_frame(0, "é".encode()[1:]), None),
        (client_frame(TEXT, "é".encode()[:1], fin=False) + client_frame(0, b"e", fin=False), 1007),
        (client_frame(BINARY, b"\xff", fin=False), None),  # and a close in the middle of the message
        (client_frame(3, b""), 1002),
        (b"\x81\x00", 1002),  # not masked
        (client_frame(0, b"x"), 1002),
        (client_frame(PING, b"x" * 126), 1002),
    ],
)
async def test_frames_that_are_too_large_too_many_or_malformed(running, client, sent, code):
    client.sendall(sent)
    if code is None:
        client.sendall(client_frame(CLOSE, (1001).to_bytes(2, "big")))
    assert heard(client)[1][0] == (code or 1001)


async def test_a_refused_client_reads_why_even_with_bytes_of_its_own_under_way(running, client):
    # Bytes that nobody reads would make the closing of the socket a reset, and the close frame vanish.
    client.sendall(client_frame(TEXT, b"x" * 5000))
    time.sleep(0.05)
    for _ in range(50):
        client.sendall(b"y" * 1000)
    assert heard(client)[1] == (1009, "frame with 5000 bytes exceeds limit of 4096 bytes")


async def test_the_answer_and_the_first_events_travel_in_one_write(running):
    await running.write_run(40, run_id="first")
    with upgrade(running, "first") as client:
        head, _, frames = client.recv(65_536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frames[:1] == b"\x81", "they came later than the answer"
        frames += read_all(client)
    stored = await running.stored("first")
    assert [data for opcode, data in frames_of(frames) if opcode == TEXT] == stored


async def test_no_extension_is_negotiated(running):
    await running.write_run(1, run_id="plain")
    headers = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    with upgrade(running, "plain", headers=headers) as client:
        assert b"extensions" not in read_head(client).lower()


# Liveness


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def lively(request):
    with service(
        loop=request.param, ws_ping_interval=0.2, ws_ping_timeout=0.4, stall_timeout_s=30.0
    ) as running:
        yield running


async def test_a_client_that_answers_pings_stays(lively):
    await lively.write_run(0, sealed=False, run_id="answers")
    async with connect(lively.url("answers"), ping_interval=None) as client:
        await asyncio.sleep(1.5)
        await lively.do(lively.write(step_log(1), run_id="answers"))
        assert json.loads(await asyncio.wait_for(client.recv(), 5))["seq"] == 1


async def test_a_client_without_pong_is_closed_1011(lively):
    await lively.write_run(0, sealed=False, run_id="silent")
    with upgrade(lively, "silent") as client:
        read_head(client)
        began = time.monotonic()
        frames, close = heard(client)
    assert close == (1011, "no PONG for 0.4 s")
    assert {opcode for opcode, _ in frames[:-1]} == {PING}
    assert 0.6 <= time.monotonic() - began < 3


async def test_any_frame_keeps_a_client_alive(lively):
    await lively.write_run(0, sealed=False, run_id="talks")
    with upgrade(lively, "talks") as client:
        read_head(client)
        for _ in range(15):
            client.sendall(client_frame(TEXT, b"still here"))
            await asyncio.sleep(0.1)
        client.settimeout(0.05)
        opcodes = {opcode for opcode, _ in frames_of(client.recv(65536))}
        assert opcodes == {PING}, "never a PONG, and yet not closed"


async def test_a_slow_reader_is_alive_while_its_buffer_drains(lively):
    await lively.write_run(3000, run_id="slow", size=400)
    stored = await lively.stored("slow")
    with upgrade(lively, "slow", SO_RCVBUF=4096) as client:
        read_head(client)
        data = b""
        until = time.monotonic() + 2.5  # far beyond interval and timeout together
        while time.monotonic() < until:
            data += client.recv(8192)
            await asyncio.sleep(0.02)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        while not data.endswith(b"lastSeq=3000"):
            chunk = client.recv(65536)
            assert chunk, frames_of(data)[-1]
            data += chunk
            if client_answer := [f for f in (PING,) if bytes([0x80 | f, 0]) in chunk]:
                client.sendall(client_frame(PONG, b"") * len(client_answer))
    frames = frames_of(data)
    assert [payload for opcode, payload in frames if opcode == TEXT] == stored
    assert close_of(frames) == (1000, "run success lastSeq=3000")


async def test_a_pong_is_not_due_while_what_came_after_the_ping_still_drains(lively):
    await lively.write_run(0, sealed=False, run_id="drains")
    with upgrade(lively, "drains", SO_RCVBUF=4096) as client:
        read_head(client)
        await asyncio.sleep(0.25)  # idle for an interval: a PING is under way, and nobody answers it
        await lively.do(lively.write(*(step_log(n, 400) for n in range(1, 4001)), run_id="drains"))
        data = b""
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            data += client.recv(8192)
            await asyncio.sleep(0.02)
        client.sendall(client_frame(PONG, b""))
        await lively.do(lively.write(seal(4000), run_id="drains"))
        while not data.endswith(b"lastSeq=4000"):
            chunk = client.recv(65536)
            assert chunk, frames_of(data)[-1]
            data += chunk
    opcodes = [opcode for opcode, _ in frames_of(data)]
    assert opcodes[0] == PING
    assert opcodes.count(TEXT) == 4000


# The stuck reader, and the end


@pytest.mark.parametrize("size", [400, 190_000])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_stuck_reader_is_closed_4408_and_a_healthy_one_gets_everything(loop, size):
    with service(loop=loop, stall_timeout_s=0.8) as running:
        count = 4_000_000 // size
        await running.write_run(count, run_id="r", size=size)
        with upgrade(running, SO_RCVBUF=4096) as stuck:
            read_head(stuck)
            async with connect(running.url(), max_size=None) as healthy:
                got = [m.encode() async for m in healthy]
            assert got == await running.stored()
            began = time.monotonic()
            while len(running.endpoint.readers):
                await asyncio.sleep(0.02)
                assert time.monotonic() - began < 5
            frames, close = heard(stuck)  # it reads at last, before it is cut off
            texts = [payload for opcode, payload in frames if opcode == TEXT]
            assert texts == got[: len(texts)]
            assert close[0] == 4408
            assert close[1].startswith("no progress for 0.8 s; resume with after=")
            assert int(close[1].rpartition("=")[2]) == len(texts) > 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_stuck_reader_that_never_reads_is_cut_off(loop):
    with service(loop=loop, stall_timeout_s=0.5) as running:
        await running.write_run(20_000, size=400)
        with upgrade(running, SO_RCVBUF=4096) as stuck:
            read_head(stuck)
            began = time.monotonic()
            await asyncio.sleep(1)
            while running.server.server_state.connections:
                await asyncio.sleep(0.1)
                assert time.monotonic() - began < 10
            with pytest.raises(ConnectionResetError):
                read_all(stuck)


@pytest.mark.parametrize("size", [300, 60_000, 190_000])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_bytes_in_flight_stay_under_256_kib(loop, size):
    with service(loop=loop) as running:
        await running.write_run(6_000_000 // size, size=size)
        with upgrade(running, SO_RCVBUF=4096) as client:
            read_head(client)
            (connection,) = running.server.server_state.connections
            most = 0
            for _ in range(100):
                most = max(most, connection.outgoing.unsent())
                client.recv(20_000)
                await asyncio.sleep(0.005)
            assert 30_000 < most <= 256 * 1024
            client.settimeout(5)


async def test_a_ping_does_not_land_inside_a_large_frame():
    with service() as running:
        await running.do(running.write(START, step_log(1, 700_000), seal(1)))
        with upgrade(running, SO_RCVBUF=4096) as client:
            read_head(client)
            await asyncio.sleep(0.1)
            client.sendall(client_frame(PING, b"in the middle"))
            await asyncio.sleep(0.1)
            data = b""
            while not data.endswith(b"lastSeq=1"):
                data += client.recv(1 << 16)
    frames = frames_of(data)
    assert [opcode for opcode, _ in frames] == [TEXT, PONG, CLOSE]
    assert len(frames[0][1]) > 700_000


async def test_nothing_follows_our_close_not_even_a_pong(running, client):
    client.sendall(client_frame(TEXT, b"\xff"))
    data = b""
    while not data or frames_of(data)[-1][0] != CLOSE:
        data += client.recv(1 << 16)
    client.sendall(client_frame(PING, b"late") + client_frame(CLOSE, data[-2:]))
    assert client.recv(1 << 16) == b""


@pytest.mark.parametrize("announced", [True, False], ids=["closing-set", "uvicorn-alone"])
async def test_a_shutdown_closes_1012_and_waits_for_nobody(announced):
    with service() as running:
        await running.write_run(20_000, sealed=False, size=400)
        with upgrade(running, SO_RCVBUF=4096) as stuck, upgrade(running, query="?after=tail") as idle:
            read_head(stuck)
            read_head(idle)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            if announced:
                running.loop.call_soon_threadsafe(running.closing.set)
            running.server.should_exit = True
            frames, close = heard_and_answered(idle)
            assert frames == [] or announced
            assert close[0] == 1012
            assert close[1] == ("shutting down; resume with after=20000" if announced else "shutting down")
            await asyncio.to_thread(running.thread.join, 9)
            assert not running.thread.is_alive()
            assert time.monotonic() - began < 9


def heard_and_answered(client: socket.socket) -> tuple[list[tuple[int, bytes]], tuple[int, str]]:
    """Read up to the close frame, answer it, and see the connection end."""
    data = b""
    while not data or frames_of(data)[-1][0] != CLOSE:
        data += client.recv(65536)
    client.sendall(client_frame(CLOSE, data[-2:]))
    assert client.recv(1) == b""
    frames = frames_of(data)
    return frames[:-1], close_of(frames)
