"""Who reads history: in turns, and in pages of what each of them takes."""

import asyncio
from time import monotonic

import pytest
import uvloop

from service.api import stream_read
from service.api.filters import After, EventFilter
from service.api.stream_query import StreamQuery
from service.api.stream_read import FIRST_PAGE_EVENTS, PAGE_EVENTS, SLOW_PAGE_EVENTS, open_reading
from service.api.turns import READERS_PER_TURN, Turns
from service.domain.events import StepLog
from service.log import NewEvent
from service.log.memory import MemoryLog

EVENTS = 5_000
LOOPS = [uvloop.new_event_loop, asyncio.new_event_loop]


async def all_through(turns: Turns, came: list[int], count: int, *, gone: frozenset[int] = frozenset()):
    """Let ``count`` come at once, those in ``gone`` leave again; return how many went through per turn."""

    async def one(number: int) -> None:
        await turns.next()
        came.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(0)  # all stand in line
    for number in gone:
        tasks[number].cancel()
    per_turn = []
    while len(came) < count - len(gone):
        before = len(came)
        await asyncio.sleep(0)
        per_turn.append(len(came) - before)
    await asyncio.gather(*tasks, return_exceptions=True)
    return per_turn


@pytest.mark.parametrize("factory", LOOPS)
def test_a_thousand_who_could_read_at_once_leave_the_loop_its_turns(factory):
    async def main() -> None:
        came: list[int] = []
        per_turn = await all_through(Turns(), came, 1_000)
        assert came == list(range(1_000))
        assert max(per_turn) <= READERS_PER_TURN
        assert len(per_turn) <= 1_000 / READERS_PER_TURN + 2

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_who_leaves_takes_nobodys_turn_and_holds_up_nobody(factory):
    async def main() -> None:
        turns, came = Turns(), []
        gone = frozenset(range(3, 90))
        await all_through(turns, came, 100, gone=gone)
        assert came == sorted(set(range(100)) - gone)
        again: list[int] = []
        await all_through(turns, again, 10)
        assert again == list(range(10))

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_one_alone_waits_for_one_turn_only(factory):
    async def main() -> None:
        turns, passed = Turns(), 0

        def count() -> None:
            nonlocal passed
            passed += 1
            asyncio.get_running_loop().call_soon(count)

        count()
        for _ in range(100):
            before = passed
            await turns.next()
            assert passed - before <= 1

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def pages(take_s: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Read a run from its start with a client that takes so long for each event; return the pages' sizes."""
    log = MemoryLog()
    for n in range(EVENTS // 1_000):
        await log.append("run/r", [NewEvent(StepLog.type, b"{}")] * 1_000, expected_seq=n * 1_000 - 1)
    reading = await open_reading(log, "r", StreamQuery(After(-1), EventFilter()))
    sizes, taken_s = [], 0.0
    monkeypatch.setattr(stream_read, "monotonic", lambda: monotonic() + taken_s)
    while (stretch := await reading.next()) is not None:
        sizes.append(len(stretch))
        taken_s += len(stretch) * take_s
    assert sum(sizes) == EVENTS
    return sizes


def test_who_takes_at_once_is_given_large_pages(monkeypatch):
    sizes = asyncio.run(pages(0.0, monkeypatch))
    assert sizes[0] == FIRST_PAGE_EVENTS
    assert sizes[7:-1] == [PAGE_EVENTS] * len(sizes[7:-1])


def test_who_takes_its_time_is_given_what_it_takes_in_half_a_second(monkeypatch):
    assert set(asyncio.run(pages(0.5, monkeypatch))[1:-1]) == {SLOW_PAGE_EVENTS}
    assert set(asyncio.run(pages(1 / 400, monkeypatch))[6:-1]) <= {199, 200}
