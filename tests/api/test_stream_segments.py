"""A long run: the same bytes live, from rows, from segments and out of their cache, over every transport."""

import asyncio
import random
import sqlite3
import time
from contextlib import closing

import pytest

from service.segments.file import frames_path
from tests.api.test_stream_everywhere import over_lines, over_pages, over_sse, over_websocket
from tests.server import Server

LINES = 6_000
SEALED_WITHIN_S = 120.0
LIVE_WITHIN_S = 60.0


def sealed(server) -> int:
    """Return up to which seq the long run is sealed, 0 if nothing is."""
    path = server.db.with_name(f"{server.db.name}.segments")
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            return db.execute("select max(last_seq) from segments").fetchone()[0] or 0
        except sqlite3.OperationalError:  # it is just being made
            return 0


def wait_until_sealed(server) -> None:
    deadline = time.monotonic() + SEALED_WITHIN_S
    while sealed(server) < LINES:
        assert time.monotonic() < deadline, sealed(server)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A service, a finished long run, its events as clients got them who watched it live, and as they are stored."""
    directory = tmp_path_factory.mktemp("long")
    gate = directory / "gate"
    say = f"while [ ! -e {gate} ]; do sleep 0.02; done; seq 1 {LINES}"
    with Server(directory) as server:
        step = {"type": "command", "config": {"command": "sh", "args": ["-c", say]}}
        server.create("long", {"steps": {"a": step}})
        run_id = server.execute("long")

        async def live() -> list[list[bytes]]:
            watching = [asyncio.ensure_future(over_websocket(server, run_id, "")) for _ in range(5)]
            await asyncio.to_thread(gate.touch)
            return await asyncio.wait_for(asyncio.gather(*watching), LIVE_WITHIN_S)

        seen = asyncio.run(live())
        wait_until_sealed(server)
        yield server, run_id, seen, over_pages(server, run_id, "", 1_000)


def test_live_it_was_what_is_stored(long):
    _, _, seen, stored = long
    assert len(stored) > LINES
    assert all(each == stored for each in seen)


async def test_from_segments_and_from_their_cache_it_is_the_same_everywhere(long):
    server, run_id, _, stored = long
    chance = random.Random(5)
    for after in (None, 0, 63, 64, 1_023, 1_024, 1_025, *(chance.randrange(len(stored)) for _ in range(6))):
        query = "" if after is None else f"after={after}"
        wanted = stored[after or 0 :]
        assert await over_websocket(server, run_id, query) == wanted, after
        assert over_lines(server, run_id, query) == wanted, after
        assert over_sse(server, run_id, query) == wanted, after


async def test_of_a_segment_a_filter_sees_its_rows(long):
    server, run_id, _, stored = long
    assert await over_websocket(server, run_id, "level=error") == [
        each for each in stored if b'"type":"step_log"' not in each
    ]
    everything = await over_websocket(server, run_id, "types=all")
    assert everything[1:-1] == stored
    assert b'"type":"run_start"' in everything[0]
    assert b'"type":"run_complete"' in everything[-1]


async def test_damaged_segments_and_none_at_all_change_nothing(long):
    server, run_id, _, stored = long
    path = server.db.with_name(f"{server.db.name}.segments")
    assert server.stop() == 0
    chance = random.Random(7)
    for file, flips in ((frames_path(path), 5), (frames_path(path), 200), (path, 200)):
        data = bytearray(file.read_bytes())
        for _ in range(flips):
            data[chance.randrange(len(data) // 4, len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        server.start()
        for _ in range(3):  # while it is found out, and made again
            assert await over_websocket(server, run_id, "") == stored
        wait_until_sealed(server)
        assert server.stop() == 0
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    server.start()
    assert await over_websocket(server, run_id, "") == stored
    wait_until_sealed(server)
    assert await over_websocket(server, run_id, "") == stored
