"""Appends on their way are bounded: the next one waits its turn, and who gives up passes it on."""

import asyncio

import pytest

from service.errors import LogUnavailable
from service.log import NewEvent
from service.log.sqlite import SqliteLog

EVENT = [NewEvent("t", b"{}")]


@pytest.fixture
async def log(tmp_path, monkeypatch):
    monkeypatch.setattr("service.log.sqlite.APPENDS_WAITING_MAX", 3)
    log = SqliteLog.open(tmp_path / "tailrace.db")
    yield log
    await log.close()


def appending(log: SqliteLog, number: int) -> asyncio.Task:
    return asyncio.create_task(log.append(f"run/{number}", EVENT, expected_seq=-1))


async def test_all_are_stored_however_many_wait(log):
    tasks = [appending(log, number) for number in range(50)]
    await asyncio.sleep(0)
    assert len(log._room) == 47
    stored = await asyncio.gather(*tasks)
    assert sorted(each.position for each in stored) == list(range(1, 51))
    assert (log._room.free, len(log._room)) == (3, 0)


async def test_who_gives_up_at_any_moment_takes_no_room_along(log):
    tasks = [appending(log, number) for number in range(60)]
    for round_ in range(6):
        await asyncio.sleep(0)
        for task in tasks[round_::7]:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await log.append("run/last", EVENT, expected_seq=-1)
    assert (log._room.free, len(log._room)) == (3, 0)


async def test_who_waits_for_room_when_the_log_closes_is_told(log):
    tasks = [appending(log, number) for number in range(10)]
    await asyncio.sleep(0)
    await log.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, LogUnavailable) for result in results] == [False] * 3 + [True] * 7
