"""One append against one new follower, at every moment of the append."""

import asyncio
from pathlib import Path

import pytest

from service.log import Log
from service.log.follow import follow, follow_all
from service.log.memory import MemoryLog
from service.log.sqlite import SqliteLog
from tests.log.contract import new, take, texts


async def race(log: Log, *, turns: int, naps: int, stream: str) -> None:
    """Append one event, start a follower ``turns`` turns of the loop (or naps) later: it gets that event."""
    position = await log.wait(None, after=-1)
    appending = asyncio.ensure_future(log.append(stream, new(stream), expected_seq=-1))
    for _ in range(turns):
        await asyncio.sleep(0)
    if naps:
        await asyncio.sleep(naps * 20e-6)
    of_stream = take(follow(log, stream, after=-1), 1)
    of_all = take(follow_all(log, after=position), 1)
    of_type = take(follow_all(log, after=position, types=["note"]), 1)
    found = await asyncio.gather(of_stream, of_all, of_type)
    assert [texts(events) for events in found] == [[stream]] * 3
    await appending


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_follower_that_starts_during_an_append_gets_it_once(kind: str, tmp_path: Path) -> None:
    log = MemoryLog() if kind == "memory" else SqliteLog.open(tmp_path / "tailrace.db")
    for number in range(300):
        await race(log, turns=number % 4, naps=number % 25, stream=f"run/{number}")
    await log.close()


async def test_every_follower_of_many_gets_every_append_once(tmp_path: Path) -> None:
    log = SqliteLog.open(tmp_path / "tailrace.db")
    followers = []
    for number in range(200):
        following = take(follow(log, "run/a", after=number - 1, page_events=3), 200 - number)
        followers.append((number, asyncio.ensure_future(following)))
        await log.append("run/a", new(str(number)), expected_seq=number - 1)
    for number, following in followers:
        assert texts(await following) == [str(n) for n in range(number, 200)]
    await log.close()
