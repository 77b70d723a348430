"""The HTTP protocol: requests that never end or are too large, readers that never read, orderly shutdowns."""

import asyncio
import re
import time

import pytest

from service.wire.http_protocol import HEADER_BYTES_MAX
from tests.wire.server import PREFIX, read_all, read_head, service, step_log

EVENTS = f"GET {PREFIX}r/stream HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()
ECHO = b"GET /echo HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def running(request):
    with service(loop=request.param) as running:
        yield running


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", 0),
        (b"GET /echo HT", 408),
        (ECHO, 408),
        (ECHO + b"X: never ending", 408),
        (ECHO + b"Content-Length: 10\r\n\r\n12345", 204),
        (b"POST /slurp HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", 0),
    ],
    ids=["nothing", "half-line", "half-headers", "half-header", "half-body", "half-body-awaited"],
)
async def test_a_request_that_never_ends_has_a_deadline(running, sent, expected):
    with running.connect() as client:
        client.sendall(sent)
        began = time.monotonic()
        try:
            answer = await asyncio.to_thread(read_all, client)
        except ConnectionResetError:
            answer = b""
        assert 0.5 < time.monotonic() - began < 5
    assert status(answer) == expected
    if expected == 408:
        assert b"application/problem+json" in answer


async def test_bytes_in_a_trickle_do_not_move_the_deadline(running):
    with running.connect() as client:
        began = time.monotonic()
        client.settimeout(0.05)
        answer = b""
        for byte in (ECHO + b"X: " + b"x" * 200) * 5:
            client.sendall(bytes([byte]))
            try:
                answer = client.recv(1000)
                break
            except TimeoutError:
                pass
        assert status(answer) == 408
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (ECHO + b"X: " + b"x" * (HEADER_BYTES_MAX - 100) + b"\r\n\r\n", 204),
        (ECHO + b"X: " + b"x" * HEADER_BYTES_MAX + b"\r\n\r\n", 431),
        (ECHO + b"X: " + b"x" * HEADER_BYTES_MAX * 3, 431),
        (ECHO + b"X: x\r\n" * 20_000, 431),
        (b"GET /" + b"x" * HEADER_BYTES_MAX, 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, 204),
        (ECHO + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"\x16\x03\x01 not http\r\n\r\n", 400),
    ],
    ids=["just-fits", "too-large", "never-ends", "many", "long-path", "large-body", "cl-te", "tls"],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_the_size_of_headers_is_capped(running, sent, expected, pieces):
    with running.connect() as client:
        size = -(-len(sent) // pieces)
        try:
            for start in range(0, len(sent), size):
                client.sendall(sent[start : start + size])
                await asyncio.sleep(0.02)
            answer = client.recv(65536)
        except (ConnectionResetError, BrokenPipeError):  # it was refused while it was still sending
            assert expected in {400, 431}
            assert pieces > 1
            return
    assert status(answer) == expected


async def test_a_kept_connection_serves_again_and_expires_in_mid_request(running):
    with running.connect() as client:
        for _ in range(3):
            client.sendall(ECHO + b"\r\n")
            assert status(read_head(client)) == 204
        client.sendall(ECHO)
        assert status(await asyncio.to_thread(read_all, client)) == 408


async def test_http_1_0_gets_no_chunks_and_the_answer_ends_with_the_connection(running):
    await running.write_run(300, run_id="old", size=2_000)
    with running.connect(SO_RCVBUF=4096) as client:
        path = f"{PREFIX}old/stream"
        client.sendall(
            f"GET {path} HTTP/1.0\r\nAccept: application/x-ndjson\r\nConnection: keep-alive\r\n\r\n".encode()
        )
        head = read_head(client).lower()
        body = await asyncio.to_thread(read_all, client)
    assert status(head) == 200
    assert b"\r\nconnection: close\r\n" in head
    assert b"\r\ntransfer-encoding:" not in head
    assert body.splitlines() == await running.stored("old")
    assert body.endswith(b"\n")


@pytest.mark.parametrize(
    "request_line", ["GET /echo", "HEAD /echo", f"HEAD {PREFIX}unknown/stream", f"GET {PREFIX}unknown/stream"]
)
async def test_what_tells_its_length_or_has_no_body_is_for_http_1_0_as_for_1_1(running, request_line):
    answers = []
    for version in ("1.0", "1.1"):
        with running.connect() as client:
            client.sendall(f"{request_line} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = re.sub(rb"\r\ndate: [^\r]+", b"", read_head(client))
            body = await asyncio.to_thread(read_all, client)
        length = re.search(rb"content-length: (\d+)", head)
        assert len(body) == (int(length[1]) if length and request_line.startswith("GET") else 0)
        answers.append((head, body))
    assert answers[0] == answers[1]


async def test_http_1_0_sees_that_an_answer_is_not_whole(running):
    with running.connect() as client:
        client.sendall(b"GET /torn HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(read_all, client)


async def test_too_many_pipelined_requests_are_cut_off(running):
    await running.write_run(1, sealed=False)
    with running.connect() as client:
        client.sendall(EVENTS + (ECHO + b"\r\n") * 15)
        assert status(read_head(client)) == 200
        client.sendall((ECHO + b"\r\n") * 40)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(read_all, client)


async def test_a_stream_with_requests_behind_it_ends_when_its_client_leaves(running):
    await running.write_run(1, sealed=False, run_id="behind")
    with running.connect() as client:
        client.sendall(EVENTS.replace(b"/r/", b"/behind/") + ECHO + b"\r\n")
        read_head(client)
        assert len(running.endpoint.readers)
    began = time.monotonic()
    while len(running.endpoint.readers):
        await asyncio.sleep(0.02)
        assert time.monotonic() - began < 5


async def test_rubbish_does_not_land_inside_a_stream(running):
    await running.write_run(1, sealed=False, run_id="tidy")
    with running.connect() as client:
        client.sendall(EVENTS.replace(b"/r/", b"/tidy/"))
        read_head(client)
        client.sendall(b"\x00\x01 rubbish\r\n\r\n")
        try:
            assert b"HTTP/1.1" not in await asyncio.to_thread(read_all, client)
        except ConnectionResetError:
            pass


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_stuck_reader_of_events_is_cut_off_and_its_bytes_are_bounded(loop):
    with service(loop=loop, stall_timeout_s=0.6) as running:
        await running.write_run(100, size=190_000)
        with running.connect(SO_RCVBUF=4096) as client:
            client.sendall(EVENTS)
            read_head(client)
            (connection,) = running.server.server_state.connections
            began = time.monotonic()
            most = 0
            while len(running.endpoint.readers):
                most = max(most, connection.outgoing.unsent())
                await asyncio.sleep(0.01)
                assert time.monotonic() - began < 5
            assert time.monotonic() - began > 0.5
            assert 60_000 < most <= 256 * 1024
            assert running.server.server_state.connections == set()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_client_that_leaves_leaves_nothing_behind(loop):
    with service(loop=loop, keepalive_interval_s=0.05) as running:
        await running.write_run(50_000, sealed=False)
        for query in (b"", b"?after=tail"):
            client = running.connect()
            client.sendall(EVENTS.replace(b"/stream", b"/stream" + query))
            read_head(client)
            client.close()
        began = time.monotonic()
        while len(running.endpoint.readers):
            await asyncio.sleep(0.02)
            assert time.monotonic() - began < 5
        busy = await running.do(cpu_ns_of(0.5))
        assert busy < 0.2 * 0.5e9, "something spins"


async def cpu_ns_of(duration_s: float) -> int:
    """Return the CPU time of the server's thread during ``duration_s``."""
    began = time.thread_time_ns()
    await asyncio.sleep(duration_s)
    return time.thread_time_ns() - began


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_shutdown_waits_for_no_client(loop):
    with service(loop=loop) as running:
        await running.write_run(20_000, sealed=False, size=400)
        sent = [
            b"",
            b"GET /ec",
            ECHO,
            b"POST /slurp HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
            EVENTS,
        ]
        clients = [running.connect(SO_RCVBUF=4096) for _ in sent]
        for client, request in zip(clients, sent, strict=True):
            client.sendall(request)
        read_head(clients[-1])  # and then never reads again
        await asyncio.sleep(0.1)
        began = time.monotonic()
        running.loop.call_soon_threadsafe(running.closing.set)
        running.server.should_exit = True
        await asyncio.to_thread(running.thread.join, 9)
        assert not running.thread.is_alive()
        assert time.monotonic() - began < 6
        for client in clients:
            client.close()


async def test_a_shutdown_ends_a_stream_of_events_without_an_end_event():
    with service() as running:
        await running.write_run(1, sealed=False)
        with running.connect() as client:
            client.sendall(EVENTS)
            read_head(client)
            await running.do(running.write(step_log(2)))
            await asyncio.sleep(0.1)
            running.loop.call_soon_threadsafe(running.closing.set)
            running.server.should_exit = True
            body = await asyncio.to_thread(read_all, client)
        assert body.endswith(b"0\r\n\r\n"), "a whole response: the browser reconnects by itself"
        assert b"event: end" not in body
        assert body.count(b"data: ") == 2
