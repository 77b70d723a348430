"""A page of events that is held until there is something on it."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.access import ANONYMOUS
from service.api import patience
from service.domain.events import StepComplete, StepStart
from service.errors import Throttled
from service.log.memory import MemoryLog
from tests.api.inside import context_of
from tests.api.test_history import History, seqs
from tests.projection.histories import append_run, log_line, seal, start
from tests.projection.house import projecting

EVENTS = "/workflows/runs/r1/events"


@pytest.fixture
async def history(tmp_path: Path):
    log = MemoryLog()
    async with projecting(tmp_path / "views", log) as projections:
        yield History(log, context_of(log, projections))


async def held(history: History, query: str, *, status: int = 200) -> asyncio.Task:
    """Return a request that the service holds."""
    # Far less than the wait: a page that comes only at its end comes too late.
    asked = asyncio.create_task(asyncio.wait_for(history.get(f"{EVENTS}?{query}", status), 20))
    while history.context.held.count == 0:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asked.done()
    return asked


async def test_a_page_comes_with_the_first_event_that_passes(history: History) -> None:
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1)])
    asked = await held(history, "after=1&level=warn&wait=5m")
    await append_run(history.log, "r1", [log_line("a", "…", "info")], after=1)
    await asyncio.sleep(0.02)
    assert not asked.done()
    await append_run(history.log, "r1", [log_line("a", "!", "error")], after=2)
    page = await asked
    assert (seqs(page["data"]), page["lastSeq"], page["nextCursor"]) == ([3], 3, None)
    assert page["status"] == "running"
    assert history.context.held.count == 0


async def test_the_run_may_not_exist_yet(history: History) -> None:
    asked = await held(history, "wait=5m")
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1)])
    assert seqs((await asked)["data"]) == [1]
    assert (await history.get("/workflows/runs/r2/events?wait=20ms", 404))["status"] == 404


async def test_of_a_run_to_come_all_is_new(history: History) -> None:
    asked = await held(history, "after=tail&wait=5m")
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1)])
    assert seqs((await asked)["data"]) == [1]


async def test_nothing_comes_in_time(history: History) -> None:
    await append_run(history.log, "r1", [start()])
    began = time.monotonic()
    page = await history.get(f"{EVENTS}?wait=60ms")
    assert (page["data"], page["nextCursor"], page["lastSeq"], page["status"]) == ([], None, 0, "queued")
    assert time.monotonic() - began >= 0.06


async def test_nothing_will_ever_come_once_the_run_is_over(history: History) -> None:
    await append_run(history.log, "r1", [start(), StepComplete("a", "…", "success", 1, 1)])
    asked = await held(history, "after=tail&wait=5m")
    await append_run(history.log, "r1", [seal("success", 1)], after=1)
    page = await asked
    assert (page["data"], page["lastSeq"], page["status"]) == ([], 2, "success")
    async with asyncio.timeout(20):
        page = await history.get(f"{EVENTS}?after=2&wait=5m")
    assert (page["data"], page["lastSeq"], page["status"]) == ([], 2, "success")


@pytest.mark.parametrize("status", ["success", "failed", "cancelled"])
async def test_who_turns_pages_finds_the_end_of_the_run(history: History, status: str) -> None:
    """It knows nothing but the pages."""
    lines = [log_line("a", "…") for _ in range(7)]
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1), *lines])
    found, said, after = [], [], 0
    for _ in range(10):
        page = await history.get(f"{EVENTS}?after={after}&limit=3&wait=1ms")
        found += seqs(page["data"])
        said.append(page["status"])
        if page["status"] not in {None, "queued", "running"}:
            break
        if page["nextCursor"] is None:
            await append_run(
                history.log, "r1", [StepComplete("a", "…", status, 1, 1), seal(status, 9)], after=8
            )
        after = page["lastSeq"] if page["nextCursor"] is None else page["nextCursor"]
    assert found == [*range(1, 10)]
    assert said == [None, None, "running", status]
    assert (await history.get("/workflows/runs/r1/logs?limit=2"))["status"] is None
    assert (await history.get("/workflows/runs/r1/logs"))["status"] == status


async def test_what_is_there_is_not_waited_for(history: History) -> None:
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1)])
    assert seqs((await history.get(f"{EVENTS}?wait=5m"))["data"]) == [1]
    assert (await history.get(f"{EVENTS}?wait=5m&after=7", 409))["lastSeq"] == 1


async def test_a_shutdown_ends_the_waiting(history: History) -> None:
    await append_run(history.log, "r1", [start()])
    asked = await held(history, "wait=5m", status=503)
    history.context.closing.set()
    assert (await asked)["detail"] == "The service is shutting down."


async def test_only_so_many_wait(history: History, monkeypatch) -> None:
    monkeypatch.setattr(patience, "HELD_REQUESTS_MAX", 1)
    await append_run(history.log, "r1", [start()])
    asked = await held(history, "wait=5m")
    assert "wait already" in (await history.get(f"{EVENTS}?wait=5m", 503))["detail"]
    assert (await history.get(EVENTS))["data"] == []
    await append_run(history.log, "r1", [StepStart("a", "…", 1)], after=0)
    assert seqs((await asked)["data"]) == [1]


def test_one_user_s_leave_room_for_others(monkeypatch) -> None:
    monkeypatch.setattr(patience, "HELD_REQUESTS_PER_USER_MAX", 2)
    held = patience.Held()
    with ExitStack() as stack:
        for user in ("ann", "ann", "bob", ANONYMOUS, ANONYMOUS, ANONYMOUS):
            stack.enter_context(held.one(user))
        with pytest.raises(Throttled, match="'ann' has 2 requests") as refused:
            stack.enter_context(held.one("ann"))
        assert refused.value.retry_after_s == 5
        stack.enter_context(held.one("bob"))
    assert held.count == 0
    with held.one("ann"):
        pass


@pytest.mark.parametrize("wait", ["soon", "6m", "", "1y"])
async def test_a_bad_wait_is_refused(history: History, wait: str) -> None:
    (fault,) = (await history.get(f"{EVENTS}?wait={wait}", 400))["errors"]
    assert fault["pointer"] == "/query/wait"
