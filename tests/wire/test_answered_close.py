"""A client whose frames were refused: it reads why, and once it has answered, the connection ends."""

import asyncio
import time

import pytest

from service.wire.protocol import CLOSE_TIMEOUT_S, StreamProtocol
from tests.certificate import self_signed
from tests.wire.server import (
    START,
    client_frame,
    close_of,
    frames_of,
    read_head,
    seal,
    service,
    step_log,
    upgrade,
)

TEXT, CLOSE = 1, 8
SOON_S = CLOSE_TIMEOUT_S / 2
TOO_LARGE = client_frame(TEXT, b"x" * 5000)
RESERVED = client_frame(3, b"")


def code(number: int) -> bytes:
    return number.to_bytes(2, "big")


@pytest.fixture(scope="module", params=["uvloop", "asyncio", "uvloop-tls", "asyncio-tls"])
def running(request, tmp_path_factory):
    loop, _, tls = request.param.partition("-")
    certificate = self_signed(tmp_path_factory.mktemp("tls")) if tls else None
    with service(loop=loop, ws=StreamProtocol, certificate=certificate) as running:
        asyncio.run(running.write_run(1, sealed=False))
        asyncio.run(running.do(running.write(START, step_log(1, 700_000), seal(1), run_id="large")))
        yield running


def read_to_close(client) -> list[tuple[int, bytes]]:
    """Return all frames up to the close, which was the last to come."""
    data = b""
    while True:
        chunk = client.recv(65536)
        assert chunk, "the connection ended without a close"
        data += chunk
        try:
            frames = frames_of(data)
        except (AssertionError, IndexError):
            continue
        if frames[-1][0] == CLOSE:
            return frames


def assert_ends_soon(client) -> None:
    began = time.monotonic()
    assert client.recv(1) == b""
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize(
    "answer",
    [
        client_frame(CLOSE, code(1009)),
        client_frame(CLOSE, code(1000) + b"as you wish"),
        client_frame(CLOSE, b""),
    ],
    ids=["echo", "normal", "empty"],
)
def test_it_ends_once_the_client_has_answered(running, answer):
    with upgrade(running, query="?after=tail") as client:
        read_head(client)
        client.sendall(TOO_LARGE)
        assert close_of(read_to_close(client))[0] == 1009
        client.sendall(answer[:3])
        time.sleep(0.05)
        client.sendall(answer[3:])
        assert_ends_soon(client)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (RESERVED, client_frame(CLOSE, code(1002))),
        (b"\x81\x00", b"\x88\x02" + code(1002)),
        (client_frame(0, b"x"), client_frame(CLOSE, code(1002) + b"continues nothing")),
    ],
    ids=["reserved", "never-masked", "torn"],
)
def test_so_it_does_after_any_failure(running, sent, answer):
    with upgrade(running, query="?after=tail") as client:
        read_head(client)
        client.sendall(sent)
        assert close_of(read_to_close(client))[0] == 1002
        client.sendall(answer)
        assert_ends_soon(client)


def test_a_client_that_has_not_said_all_when_it_is_refused_is_waited_for(running):
    with upgrade(running, query="?after=tail") as client:
        read_head(client)
        client.sendall(client_frame(TEXT, b"x" * 1_000_000)[:6_000])
        time.sleep(0.05)
        for _ in range(20):
            client.sendall(b"y" * 49_700)
            time.sleep(0.02)
        client.sendall(client_frame(CLOSE, code(1009)))
        assert close_of(read_to_close(client))[0] == 1009
        assert_ends_soon(client)


@pytest.mark.parametrize("answer", [b"", client_frame(CLOSE, code(1002))], ids=["refused", "and-closed"])
def test_a_large_frame_is_finished_before_the_close(running, answer):
    with upgrade(running, "large", SO_RCVBUF=4096) as client:
        read_head(client)
        time.sleep(0.1)
        client.sendall(RESERVED + answer)
        time.sleep(0.1)
        frames = read_to_close(client)
        if not answer:
            client.sendall(client_frame(CLOSE, code(1002)))
        assert_ends_soon(client)
    assert [opcode for opcode, _ in frames] == [TEXT, CLOSE]
    assert len(frames[0][1]) > 700_000
