"""The stream as server-sent events, with a real server and a raw socket."""

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


class EventSource(Body):
    """Server-sent events and comments, block by block, behind the block that each stream begins with."""

    def __init__(self, running, run_id: str, query: str = "", headers: str = "Accept: text/event-stream\r\n"):
        super().__init__(running, run_id, query, headers)
        self.beginning = self.next() if self.status == 200 else None

    def next(self, separator: bytes = b"\n\n") -> bytes | None:
        return super().next(separator)

    def all(self, separator: bytes = b"\n\n") -> list[bytes]:
        return super().all(separator)


@pytest.fixture
def source(running):
    sources = []

    def open_(*args, **options):
        sources.append(EventSource(running, *args, **options))
        return sources[-1]

    yield open_
    for opened in sources:
        opened.close()


def end(status: str, last_seq: int, seq: int | None = None) -> bytes:
    data = json.dumps({"status": status, "lastSeq": last_seq}, separators=(",", ":"))
    return f"event: end\nid: {last_seq if seq is None else seq}\ndata: {data}".encode()


def block(seq: int, data: bytes) -> bytes:
    return b"id: %d\ndata: %b" % (seq, data)


async def test_a_finished_run_is_sent_with_ids_and_an_end(running, source):
    await running.write_run(700, run_id="finished")
    stream = source("finished")
    stored = await running.stored("finished")
    assert stream.all() == [*map(block, range(1, 701), stored), end("success", 700)]
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["vary"] == "accept"
    assert stream.headers["cache-control"] == "no-store"
    assert stream.headers["x-accel-buffering"] == "no"


async def test_a_live_run_is_tailed_with_comments_in_its_silence(running, source):
    await running.write_run(2, sealed=False, run_id="live")
    stream = source("live")
    blocks = [await asyncio.to_thread(stream.next) for _ in range(3)]
    assert blocks[2] == b":"
    await running.do(running.write(step_log(3), seal(3, "cancelled"), run_id="live"))
    blocks += await asyncio.to_thread(stream.all)
    stored = await running.stored("live")
    assert [b for b in blocks if b != b":"] == [*map(block, range(1, 4), stored), end("cancelled", 3)]


@pytest.mark.parametrize(
    ("query", "first"),
    [("?after=3", 4), ("?after=-2", 4), ("?types=step_log&after=0", 1), ("?after=4", 5)],
)
async def test_cursors_are_those_of_the_websocket(running, source, query, first):
    if not await running.stored("cursors"):
        await running.write_run(5, run_id="cursors")
    stored = await running.stored("cursors")
    expected = [*map(block, range(first, 6), stored[first - 1 :]), end("success", 5)]
    assert source("cursors", query).all() == expected


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("", 0),
        ("?after=2", 2),
        ("?after=tail", 5),
        ("?after=-2", 3),
        ("?after=-99", 0),
        ("?after=-1&level=error", 0),  # none of them is so far
        ("?after=-6&stepId=s&types=all", 0),
        ("?types=all", None),  # behind an id, the header would not be sent
        ("?types=run_start&after=0", 0),
    ],
)
async def test_it_begins_with_where_it_begins(running, source, query, first):
    """So that a browser comes back there that was cut off before its first event."""
    if not await running.stored("begins"):
        await running.write_run(5, sealed=False, run_id="begins")
    assert source("begins", query).beginning == b"retry: 3000" + (
        b"" if first is None else b"\nid: %d" % first
    )


async def test_a_run_that_was_waited_for_begins_at_its_start(running, source):
    opening = asyncio.create_task(asyncio.to_thread(source, "came", "?wait=30s&after=tail"))
    async with asyncio.timeout(10):
        while "came" not in [each.run_id for each in running.endpoint.readers]:
            await asyncio.sleep(0.01)
    await running.write_run(2, sealed=False, run_id="came")
    assert (await opening).beginning == b"retry: 3000\nid: 0"


async def test_last_event_id_overrides_the_query(running, source):
    await running.write_run(5, run_id="last-id")
    headers = "Accept: text/event-stream\r\nLast-Event-ID: 4\r\n"
    stored = await running.stored("last-id")
    assert source("last-id", "?after=1", headers).all() == [block(5, stored[4]), end("success", 5)]


@pytest.mark.parametrize(
    "query", ["?after=2", "?after=3", "?after=tail", "?types=variable_change", "?types=step_log&after=2"]
)
async def test_no_content_when_run_and_filter_leave_nothing(running, source, query):
    if not await running.stored("nothing"):
        await running.write_run(2, run_id="nothing")
    stream = source("nothing", query)
    assert stream.status == 204
    assert stream.headers["vary"] == "accept"
    assert stream.headers["cache-control"] == "no-store"
    assert "content-length" not in stream.headers
    assert "transfer-encoding" not in stream.headers


async def test_a_live_run_that_leaves_nothing_ends_with_an_end(running, source):
    await running.write_run(2, sealed=False, run_id="leaves-nothing")
    stream = source("leaves-nothing", "?types=variable_change")
    assert stream.status == 200
    await running.do(running.write(seal(2), run_id="leaves-nothing"))
    blocks = await asyncio.to_thread(stream.all)
    assert [b for b in blocks if b != b":"] == [end("success", 2)]


async def test_the_end_is_where_a_browser_that_reconnects_finds_nothing(running, source):
    await running.write_run(2, run_id="browser")
    for query in ("", "?types=all", "?types=run_complete", "?types=step_log"):
        last = source("browser", query).all()[-1]
        seq = last.split(b"\n")[1].removeprefix(b"id: ").decode()
        assert last == end("success", 2, int(seq))
        headers = f"Accept: text/event-stream\r\nLast-Event-ID: {seq}\r\n"
        assert source("browser", query, headers).status == 204, query


async def test_events_larger_than_a_piece_are_whole(running, source):
    await running.write_run(3, run_id="large", size=300_000)
    stored = await running.stored("large")
    assert source("large").all() == [*map(block, range(1, 4), stored), end("success", 3)]


async def test_a_damaged_event_is_reported_with_its_seq_and_not_delivered():
    with service(log=FailingLog(3, Damaged("run/r", 3))) as running:
        await running.do(running.write(START, *map(step_log, range(1, 6)), seal(5)))
        stored = [e.data for e in await running.do(MemoryLog.read(running.log, "run/r", after=0, limit=2))]
        stream = EventSource(running, "r")
        *events, fault = stream.all()
        assert events == [*map(block, (1, 2), stored)]
        assert fault.startswith(b"event: fault\ndata: ")
        assert json.loads(fault.split(b"data: ")[1])["seq"] == 3
        stream.close()
        # The browser comes back with what it has, and is told for good.
        again = EventSource(running, "r", headers="Accept: text/event-stream\r\nLast-Event-ID: 2\r\n")
        assert again.status == 500
        assert json.loads(again.problem())["seq"] == 3
        again.close()


async def test_a_shutdown_tells_a_browser_to_come_back_when_there_is_a_service_again():
    """Until then there is only a proxy's 502 or 503 to meet, and that is final to an EventSource."""
    with service(drain_timeout_s=30.0) as running:
        await running.write_run(1, sealed=False)
        stream = EventSource(running, "r")
        assert stream.beginning == b"retry: 3000\nid: 0", "what a shutdown has told it holds no longer"
        assert stream.next() == block(1, (await running.stored())[0])
        running.loop.call_soon_threadsafe(running.closing.set)
        assert await asyncio.to_thread(stream.all) == [b"retry: 35000"]
        stream.close()
        late = EventSource(running, "r")
        assert (late.status, late.beginning, late.all()) == (200, b"retry: 35000", []), (
            "any other status is final"
        )
        late.close()


async def test_who_waits_for_a_run_when_the_service_shuts_down_is_told_to_come_back_too():
    with service(drain_timeout_s=30.0) as running:
        waiting = asyncio.create_task(asyncio.to_thread(EventSource, running, "later", "?wait=5m"))
        while not running.endpoint.readers:
            await asyncio.sleep(0.01)
        running.loop.call_soon_threadsafe(running.closing.set)
        stream = await waiting
        assert (stream.status, stream.beginning, stream.all()) == (200, b"retry: 35000", [])
        stream.close()
