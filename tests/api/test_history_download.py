"""The download of the whole log: bounded memory, stopped by a client that leaves, damage said in its place."""

import asyncio
import http.client
import json
import re
import sqlite3
from pathlib import Path

from service.api import api
from service.log.memory import MemoryLog
from service.log.sqlite import SqliteLog
from tests.api.inside import context_of, trusting
from tests.api.test_history import History
from tests.projection.histories import append_frames, guide_frames, long_frames
from tests.projection.house import projecting
from tests.server import Server

LINES = 150_000
GROWTH_MIB_MAX = 16  # the log's tail, read pages and what the sockets hold; the download has over 21 MiB


async def test_a_long_download_through_a_socket_is_complete_and_costs_no_memory(tmp_path: Path) -> None:
    log = SqliteLog.open(tmp_path / "tailrace.db")
    await append_frames(log, "long", long_frames(LINES))
    events = await log.wait(None, after=-1)
    await log.close()
    with Server(tmp_path) as server:
        server.get("/api/v2/events?limit=1")
        before = peak_mib(server)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/api/v2/events", headers={"accept": "application/x-ndjson"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        count = size = 0
        while line := answer.readline():
            count += 1
            size += len(line)
            if count % 50_000 == 1:
                assert json.loads(line)["cursor"] == count
                assert server.get("/health").status == 200  # the others are served meanwhile
        connection.close()
        assert count == events
        assert size > 150 * LINES
        assert peak_mib(server) - before < GROWTH_MIB_MAX


def peak_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


async def test_a_client_that_leaves_ends_the_download(tmp_path: Path) -> None:
    log = MemoryLog()
    await append_frames(log, "long", long_frames(20_000))
    left, parts = asyncio.Event(), []

    async def receive() -> dict:
        if not parts:
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        parts.append(message)
        if len(parts) == 5:
            left.set()

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/api/v2/events", "raw_path": b"/api/v2/events", "query_string": b"", "root_path": "",
        "headers": [(b"accept", b"application/x-ndjson")], "client": ("127.0.0.1", 1), "server": ("here", 80),
    }  # fmt: skip
    async with projecting(tmp_path / "views", log) as projections:
        async with asyncio.timeout(10):
            await trusting(api(context_of(log, projections), None))(scope, receive, send)
    assert 5 <= len(parts) < 12  # of about 40


async def written(path: Path) -> Path:
    """Write a log of a hundred runs, a thousand events."""
    log = SqliteLog.open(path)
    for number in range(100):
        await append_frames(log, f"r{number}", guide_frames())
    await log.close()
    return path


async def test_damage_ends_the_download_with_its_name_behind_all_that_comes_before(tmp_path: Path) -> None:
    path = await written(tmp_path / "log.db")
    with sqlite3.connect(path) as db:
        db.execute("update events set data = zeroblob(length(data)) where position = 700")
    db.close()
    log = SqliteLog.open(path)
    async with projecting(tmp_path / "views", log) as projections:
        history = History(log, context_of(log, projections))
        *lines, last = await history.lines("/events")
        assert [line["cursor"] for line in lines] == list(range(1, 700))
        assert (last["problem"]["stream"], last["problem"]["seq"]) == ("run/r63", 6)
        page = await history.get("/events?cursor=650&limit=1000")
        assert (len(page["data"]), page["nextCursor"]) == (49, 699)
        problem = await history.get(f"/events?cursor={page['nextCursor']}", 500)
        assert (problem["stream"], problem["seq"]) == ("run/r63", 6)
        page = await history.get("/workflows/runs/r63/events?types=all")
        assert ([event["seq"] for event in page["data"]], page["nextCursor"]) == ([0, 1, 2, 3, 4, 5], 5)
        problem = await history.get("/workflows/runs/r63/events?after=5", 500)
        assert (problem["stream"], problem["seq"]) == ("run/r63", 6)
        assert [
            event["seq"] for event in (await history.get("/workflows/runs/r63/events?after=6"))["data"]
        ] == [7, 8, 9]
    await log.close()


async def test_where_a_page_of_the_file_is_damaged_the_position_says_behind_what_to_go_on(
    tmp_path: Path,
) -> None:
    path = await written(tmp_path / "log.db")
    with sqlite3.connect(path) as db:
        leaves = "SELECT pageno FROM dbstat WHERE name = 'events' AND pagetype = 'leaf' ORDER BY path"
        page = db.execute(leaves).fetchall()[20][0]
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    log = SqliteLog.open(path)
    async with projecting(tmp_path / "views", log) as projections:
        history = History(log, context_of(log, projections))
        *lines, last = await history.lines("/events")
        assert [line["cursor"] for line in lines] == list(range(1, len(lines) + 1))
        assert "stream" not in last["problem"]
        position = last["problem"]["position"]
        assert len(lines) < position < len(lines) + 40
        assert (await history.get(f"/events?cursor={len(lines)}", 500))["position"] == position
        rest = await history.lines(f"/events?cursor={position}")
        assert [line["cursor"] for line in rest] == list(
            range(position + 1, await log.wait(None, after=-1) + 1)
        )
    await log.close()
