"""A run that does not exist yet: a stream waits for it, and so does a page of its events."""

import asyncio
import json
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.streams import Body
from tests.wire.server import START, seal, service, step_log

FORMS = ["text/event-stream", "application/x-ndjson"]


@pytest.fixture(scope="module")
def running():
    with service() as running:
        yield running


@pytest.fixture(params=FORMS)
def body(request, running):
    opened = []

    def open_(run_id: str, query: str) -> Body:
        opened.append(Body(running, run_id, query, f"Accept: {request.param}\r\n"))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


async def test_a_websocket_is_accepted_at_once_and_gets_the_run(running):
    async with connect(running.url("soon", "?wait=30s")) as client:
        await running.do(running.write(START, step_log(1), seal(1), run_id="soon"))
        assert [(await client.recv()).encode()] == await running.stored("soon")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "run success lastSeq=1")


@pytest.mark.parametrize("after", ["tail", "-1"])
async def test_of_a_run_to_come_all_is_new(running, body, after):
    """Also what it had by the time that it was noticed."""
    run_id = f"new-{time.monotonic_ns()}"
    query = f"?wait=30s&after={after}"
    opening = asyncio.create_task(asyncio.to_thread(body, run_id, query))
    async with connect(running.url(run_id, query)) as client:
        await until(lambda: [each.run_id for each in running.endpoint.readers].count(run_id) == 2)
        await asyncio.sleep(0.05)
        await running.do(running.write(START, step_log(1), step_log(2), seal(2), run_id=run_id))
        stored = await running.stored(run_id)
        assert [(await client.recv()).encode() for _ in range(2)] == stored
    text = b"".join(await asyncio.to_thread((await opening).all, b"\n"))
    assert all(event in text for event in stored)


async def test_a_run_that_comes_right_after_the_first_look_is_new(running, monkeypatch):
    async def not_there(_) -> bool:
        await running.write(START, step_log(1), seal(1), run_id="at-once")
        return False

    monkeypatch.setattr(running.endpoint, "_is_there", not_there)
    async with connect(running.url("at-once", "?wait=30s&after=tail")) as client:
        assert [(await client.recv()).encode()] == await running.stored("at-once")


@pytest.mark.parametrize(
    ("query", "close"),
    [
        ("?wait=50ms", (4404, "There is no run 'never'.")),
        ("?wait=50ms&after=3", (4404, "There is no run 'never'.")),
    ],
)
async def test_a_websocket_is_closed_at_expiry(running, query, close):
    async with connect(running.url("never", query)) as client:
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == close


async def test_a_cursor_above_the_head_of_the_run_that_came_is_a_close(running):
    async with connect(running.url("above", "?wait=30s&after=9")) as client:
        await running.do(running.write(START, run_id="above"))
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd.code == 4409


async def test_of_a_run_that_is_there_refusals_stay_statuses(running):
    await running.write_run(1, run_id="there")
    with pytest.raises(InvalidStatus) as refused:
        await connect(running.url("there", "?wait=30s&after=9"))
    assert refused.value.response.status_code == 409
    with pytest.raises(InvalidStatus) as refused:
        await connect(running.url("no.id", "?wait=30s"))
    assert refused.value.response.status_code == 404


async def test_a_response_is_held_until_the_run_exists(running, body):
    run_id = f"held-{time.monotonic_ns()}"
    opening = asyncio.create_task(asyncio.to_thread(body, run_id, "?wait=30s"))
    await asyncio.sleep(0.05)
    assert not opening.done()
    await running.do(running.write(START, step_log(1), seal(1), run_id=run_id))
    response = await opening
    assert response.status == 200
    text = b"".join(await asyncio.to_thread(response.all, b"\n"))
    assert (await running.stored(run_id))[0] in text


async def test_a_response_is_404_at_expiry(body):
    began = time.monotonic()
    response = body("never", "?wait=80ms")
    assert (response.status, json.loads(response.problem())["status"]) == (404, 404)
    assert time.monotonic() - began >= 0.08


@pytest.mark.parametrize("accept", FORMS)
async def test_who_leaves_while_waiting_is_forgotten(running, accept):
    client = running.connect()
    path = "/api/v2/workflows/runs/left/stream?wait=5m"
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    await until(lambda: len(running.endpoint.readers) == 1)
    client.close()
    await until(lambda: len(running.endpoint.readers) == 0)
    async with connect(running.url("left", "?wait=5m")):
        await until(lambda: len(running.endpoint.readers) == 1)
    await until(lambda: len(running.endpoint.readers) == 0)


async def test_a_shutdown_ends_the_waiting():
    with service() as running:
        async with connect(running.url("x", "?wait=5m")) as client:
            opening = asyncio.create_task(
                asyncio.to_thread(Body, running, "x", "?wait=5m", "Accept: application/x-ndjson\r\n")
            )
            await until(lambda: len(running.endpoint.readers) == 2)
            running.loop.call_soon_threadsafe(running.closing.set)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                1012,
                "shutting down; nothing was sent yet",
            )
            response = await opening
            assert response.status == 503
            response.close()


async def until(holds) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
