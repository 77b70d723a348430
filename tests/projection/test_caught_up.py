"""A read sees what its caller can know of, or says that it cannot."""

import asyncio
import random
import threading
from pathlib import Path

import msgspec
import pytest

from service.domain.events import CancelRequested, StepStart
from service.errors import NotCaughtUp
from service.log.follow import follow_all
from service.log.memory import MemoryLog
from service.log.sqlite import SqliteLog
from service.projection import Projections
from service.projection.unfinished import unfinished_in
from service.projection.views import Views
from tests.projection.histories import (
    append_frames,
    append_run,
    append_signal,
    guide_frames,
    log_line,
    seal,
    start,
)
from tests.projection.house import projecting

ROUNDS = 100  # of each of 10 readers, 4 reads in each
SEAL = 10  # the seq of the guide's run's last event


@pytest.fixture
async def log(tmp_path: Path):
    log = SqliteLog.open(tmp_path / "log.db")
    yield log
    await log.close()


async def test_a_read_after_an_append_never_misses_it(tmp_path: Path, log) -> None:
    dice = random.Random(3)
    over = asyncio.Event()

    async def noise() -> None:
        seq = (await append_run(log, "noise", [start()])).seq
        while not over.is_set():
            seq = (
                await append_run(log, "noise", [log_line("step1", "…")] * dice.randint(1, 40), after=seq)
            ).seq

    async def reader(projections: Projections, name: str) -> None:
        for number in range(ROUNDS):
            run_id = f"{name}-{number}"
            await append_run(log, run_id, [start()])
            assert (await projections.run_detail(run_id)).status == "queued"
            await append_run(log, run_id, [StepStart("step1", "…", 1)], after=0)
            assert (await projections.run_detail(run_id)).status == "running"
            await append_run(log, run_id, [log_line("step1", "…")], after=1)
            assert (await projections.run_detail(run_id)).last_seq == 2
            await append_run(log, run_id, [seal("success", 3)], after=2)
            assert (await projections.run_detail(run_id)).status == "success"

    async with projecting(tmp_path / "views", log) as projections, asyncio.TaskGroup() as group:
        noisy = group.create_task(noise())
        readers = [group.create_task(reader(projections, name)) for name in "abcdefghij"]
        await asyncio.wait(readers)
        over.set()
        await noisy


async def test_a_live_run_never_shows_the_seq_of_its_seal(tmp_path: Path, log) -> None:
    async with projecting(tmp_path / "views", log) as projections:

        async def writer() -> None:
            for number in range(200):
                await append_frames(log, f"r{number}", guide_frames())

        writing = asyncio.create_task(writer())
        looked_at = 0
        while not writing.done():
            for run_id in (await projections.unfinished()).owners:
                run = await projections.run_detail(run_id)
                looked_at += 1
                assert run.status == "success" or run.last_seq < SEAL, run
            await asyncio.sleep(0)
        await writing
        assert looked_at > 10


async def test_events_that_no_view_keeps_hold_up_nobody(tmp_path: Path) -> None:
    log = MemoryLog()
    async with projecting(tmp_path / "views", log) as projections:
        await append_run(log, "r1", [start()])
        for seq in range(50):
            await append_run(log, "r1", [log_line("step1", "…")], after=seq)
            await append_signal(log, "r1", CancelRequested("me"), after=seq - 1)
            await projections.caught_up(0.5)


async def test_views_that_nobody_keeps_up_are_not_read(tmp_path: Path) -> None:
    log = MemoryLog()
    projections = Projections.open(tmp_path / "views", log)
    for _ in range(2):  # with an empty log, and with one event
        with pytest.raises(NotCaughtUp):
            await projections.caught_up(0.05)
        await append_run(log, f"r{_}", [start()])
    await projections.close()


async def test_readers_wait_for_a_slow_follower_and_give_up_in_time(tmp_path: Path, monkeypatch) -> None:
    log = MemoryLog()
    async with projecting(tmp_path / "views", log) as projections:
        await projections.caught_up()
        gate = asyncio.Event()
        in_thread = projections._in_thread

        async def gated(*args):
            await gate.wait()
            return await in_thread(*args)

        monkeypatch.setattr(projections, "_in_thread", gated)
        await append_run(log, "r1", [start()])
        with pytest.raises(NotCaughtUp):
            await projections.caught_up(0.05)
        waiting = [asyncio.create_task(projections.run_detail("r1")) for _ in range(10)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        gate.set()
        assert all([await task for task in waiting])
        monkeypatch.undo()


async def test_no_views_are_made_while_the_log_is_searched_for_what_is_unfinished(
    tmp_path: Path, log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        await append_run(log, f"r{number}", [start()])
    searched, gate = asyncio.Event(), asyncio.Event()

    async def search(log):
        searched.set()
        await gate.wait()
        return await unfinished_in(log)

    monkeypatch.setattr("service.projection.projections.unfinished_in", search)
    monkeypatch.setattr("service.projection.projections.UNFINISHED_WITHIN_S", 0.0)
    monkeypatch.setattr("service.projection.projections.PAGE_EVENTS", 1)
    async with projecting(tmp_path / "views", log) as projections:
        unfinished = asyncio.create_task(projections.unfinished())
        await searched.wait()
        with pytest.raises(NotCaughtUp):  # what was under way ends, nothing further begins
            await projections.caught_up(0.2)
        applied = projections._applied
        with pytest.raises(NotCaughtUp):
            await projections.caught_up(0.2)
        assert projections._applied == applied < 10
        gate.set()
        assert len((await unfinished).owners) == 10
        await projections.caught_up()


@pytest.mark.parametrize("views", ["made", "in the making"])
async def test_unfinished_and_its_position_miss_no_run(
    tmp_path: Path, log, monkeypatch: pytest.MonkeyPatch, views: str
) -> None:
    gate = threading.Event()
    for number in range(30):
        frames = guide_frames()
        await append_frames(log, f"r{number}", frames if number % 3 else frames[: 1 + number % 2])
    owned = msgspec.structs.replace(start(), trigger={"type": "api", "by": "ann"})
    await append_run(log, "owned", [owned])
    if views == "in the making":
        monkeypatch.setattr("service.projection.projections.UNFINISHED_WITHIN_S", 0.05)
        monkeypatch.setattr(Views, "apply", lambda *_: gate.wait())
    async with projecting(tmp_path / "views", log) as projections:
        async with asyncio.timeout(10):
            unfinished = await projections.unfinished()
        assert (projections.making is None) == (views == "made")
        gate.set()
        assert unfinished.owners == {f"r{number}": None for number in range(0, 30, 3)} | {"owned": "ann"}
        assert list(unfinished.owners) == [*(f"r{number}" for number in range(0, 30, 3)), "owned"]
        await append_run(log, "new", [start()])
        async with asyncio.timeout(5):
            async for page in follow_all(log, after=unfinished.position, types=["run_start"]):
                assert [event.stream for event in page] == ["run/new"]
                break
