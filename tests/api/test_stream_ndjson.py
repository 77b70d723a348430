"""The stream as NDJSON, with a real server and a raw socket."""

import asyncio
import json

import pytest

from service.errors import Damaged
from service.log.memory import MemoryLog
from tests.api.streams import Body
from tests.wire.server import START, FailingLog, seal, service, step_log


@pytest.fixture(scope="module")
def running():
    with service(keepalive_interval_s=0.2) as running:
        yield running


@pytest.fixture
def lines(running):
    opened = []

    def open_(run_id: str, query: str = "", headers: str = "Accept: application/x-ndjson\r\n", at=running):
        opened.append(Body(at, run_id, query, headers))
        return opened[-1]

    yield open_
    for body in opened:
        body.close()


def said(body: Body) -> list[bytes]:
    return [line for line in body.all(b"\n") if line]


async def test_a_finished_run_is_its_events_a_line_each_and_nothing_else(running, lines):
    await running.write_run(700, run_id="finished")
    body = lines("finished")
    assert body.all(b"\n") == await running.stored("finished")
    assert body.status == 200
    assert body.headers["content-type"] == "application/x-ndjson"
    assert body.headers["vary"] == "accept"
    assert body.headers["cache-control"] == "no-store"
    assert body.headers["x-accel-buffering"] == "no"


async def test_a_live_run_is_followed_to_its_end_with_empty_lines_in_its_silence(running, lines):
    await running.write_run(2, sealed=False, run_id="live")
    body = lines("live")
    first = [await asyncio.to_thread(body.next, b"\n") for _ in range(3)]
    assert first[2] == b""
    await running.do(running.write(step_log(3), seal(3, "failed"), run_id="live"))
    rest = await asyncio.to_thread(said, body)
    assert first[:2] + rest == await running.stored("live")


@pytest.mark.parametrize(
    ("query", "first"), [("?after=3", 4), ("?after=-2", 4), ("?types=step_log&after=0", 1), ("?after=5", 6)]
)
async def test_cursors_are_those_of_the_websocket(running, lines, query, first):
    if not await running.stored("cursors"):
        await running.write_run(5, run_id="cursors")
    body = lines("cursors", query)
    assert body.all(b"\n") == (await running.stored("cursors"))[first - 1 :]
    assert body.status == 200, "a line less is no reason to come back, so there is no 204"


async def test_events_larger_than_a_piece_are_whole(running, lines):
    await running.write_run(3, run_id="large", size=300_000)
    assert lines("large").all(b"\n") == await running.stored("large")


async def test_a_damaged_event_is_reported_with_its_seq_and_not_delivered(lines):
    with service(log=FailingLog(3, Damaged("run/r", 3))) as running:
        await running.do(running.write(START, *map(step_log, range(1, 6)), seal(5)))
        stored = [e.data for e in await running.do(MemoryLog.read(running.log, "run/r", after=0, limit=2))]
        *events, last = lines("r", at=running).all(b"\n")
        assert events == stored
        assert json.loads(last)["problem"]["seq"] == 3


async def test_a_shutdown_is_told_so_that_nobody_takes_it_for_the_runs_end(lines):
    with service() as running:
        await running.write_run(2, sealed=False)
        body = lines("r", at=running)
        first = [await asyncio.to_thread(body.next, b"\n") for _ in range(2)]
        running.loop.call_soon_threadsafe(running.closing.set)
        (last,) = await asyncio.to_thread(body.all, b"\n")
        assert first == await running.stored()
        assert json.loads(last)["problem"]["status"] == 503
