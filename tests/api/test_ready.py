"""Why the service is not ready: each reason provoked for real, told by a code, and gone with its cause."""

import asyncio
import resource
import sqlite3
import time
from contextlib import closing, contextmanager

from service.domain.events import RunComplete, RunStart, StepStart, encode_run_event
from service.log import NewEvent
from service.log.sqlite import SqliteLog
from tests.server import Server

W = "/api/v2/workflows"
WAIT = {"steps": {"a": {"type": "wait", "config": {"duration": "1h"}}}}
SLEEP = {"steps": {"a": {"type": "command", "config": {"command": "sleep", "args": ["300"]}}}}
STEPS = 100_000


class Unready(Server):
    """A service that is only waited for until it listens."""

    def wait_until_ready(self) -> None:
        pass


def reasons(server: Server) -> dict[str, dict]:
    """The reasons by their codes, of which none is given twice."""
    answer = server.get("/ready")
    if answer.status == 200:
        return {}
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    found = {reason["code"]: reason for reason in answer.json["reasons"]}
    assert len(found) == len(answer.json["reasons"])
    assert all(reason["text"] in answer.json["detail"] for reason in found.values())
    return found


def until(server: Server, codes: set[str], timeout_s: float = 20.0) -> dict[str, dict]:
    deadline = time.monotonic() + timeout_s
    while (found := reasons(server)).keys() != codes:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


@contextmanager
def locked(path):
    with closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as db:
        db.execute("begin immediate")
        yield
        db.execute("rollback")


def test_too_little_space(tmp_path):
    with Unready(tmp_path, TAILRACE_MIN_FREE_BYTES=2**49) as server:
        until(server, {"disk_full"})
        assert server.post(W, {"definition": WAIT}).status == 503


def test_a_log_that_cannot_be_written(tmp_path):
    with Server(tmp_path) as server:
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, hard))
        assert server.post(W, {"definition": WAIT}).status == 503
        found = until(server, {"log_unavailable"})
        assert "the log is unavailable: " in found["log_unavailable"]["text"]
        assert server.get("/health").status == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        until(server, set())


def test_lists_that_are_behind(tmp_path):
    with Server(tmp_path) as server:
        with locked(tmp_path / "tailrace.db.views"):
            server.create("w", WAIT)
            began = time.monotonic()
            assert reasons(server).keys() == {"projection_behind"}
            assert time.monotonic() - began < 5, "a probe waits about a second"
        until(server, set())


def test_lists_that_are_made_again_and_what_waits_for_them(tmp_path):
    asyncio.run(fill(tmp_path / "tailrace.db"))
    with Unready(tmp_path) as server:
        with locked(tmp_path / "tailrace.db.views"):
            found = until(server, {"views_rebuilding", "recovering"})
            done, total = found["views_rebuilding"]["done"], found["views_rebuilding"]["total"]
            assert 0 <= done < total == STEPS + 2
            assert f"{done} of {total}" in found["views_rebuilding"]["text"]
            assert server.get(f"{W}/runs/r/events?limit=1").status == 200, "history does not wait for lists"
        until(server, set())


async def fill(path):
    """Write a log with one run of many steps, and no views beside it."""
    log = SqliteLog.open(path)
    payloads = [RunStart("w", 1, {"steps": {}}, {}, {}, "")]
    payloads += [StepStart(f"s{n}", "S", 1) for n in range(STEPS)]
    payloads.append(RunComplete("success", 1, STEPS))
    events = [
        NewEvent(payload.type, encode_run_event("r", payload, seq=seq, timestamp="2026-01-02T03:04:05.678Z"))
        for seq, payload in enumerate(payloads)
    ]
    for at in range(0, len(events), 1_000):
        await log.append("run/r", events[at : at + 1_000], expected_seq=at - 1)
    await log.close()


def test_a_service_that_drains(tmp_path):
    with Server(tmp_path) as server:
        server.create("w", SLEEP)
        run_id = server.execute("w")
        deadline = time.monotonic() + 20
        while server.run(run_id)["status"] != "running":
            assert time.monotonic() < deadline
        server.process.terminate()
        until(server, {"draining"})
        server.process.terminate()  # at once, then
        assert server.process.wait(20) == 0
        server.process.stdout.close()
        server.process = None
