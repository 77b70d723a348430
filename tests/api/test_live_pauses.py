"""When the tailer of a crowd waits for more before it pushes again: under load, and not before."""

import asyncio

import pytest

from service.api import stream_live
from service.api.filters import EventFilter
from service.api.stream_live import PAUSE_MAX_S, LiveRuns, Watcher
from service.log import NewEvent
from service.log.memory import MemoryLog

STREAM = "run/a"


class Clock:
    """Moves only when somebody moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Growing(MemoryLog):
    """Has come ``further`` than what can be read of it, whenever it is looked at."""

    further = 0

    async def wait(self, stream, *, after, types=None):
        head = await super().wait(stream, after=after, types=types)
        return head + self.further if after == -2 else head


class Client:
    """Takes what it is pushed, in ``push_s`` of the clock."""

    def __init__(self, clock: Clock, push_s: float) -> None:
        self.clock = clock
        self.push_s = push_s
        self.pushed = asyncio.Queue()

    def push(self, frames) -> bool:
        self.clock.now += self.push_s
        self.pushed.put_nowait(bytes(frames))
        return True

    def wake(self) -> None:
        """Nobody reads by itself here."""


@pytest.mark.parametrize(
    ("push_s", "further", "expected"),
    [
        (0.004, 0, []),  # nothing new
        (0.004, 1, []),  # one has come meanwhile: to wait would make it late, and save nothing
        (0.004, 2, [0.004, 0.004]),
        (0.2, 9, [PAUSE_MAX_S, PAUSE_MAX_S]),
        (0.0005, 9, []),  # a few clients are never too much
    ],
)
async def test_events_gather_only_when_they_come_faster_than_they_are_pushed(
    monkeypatch: pytest.MonkeyPatch, push_s: float, further: int, expected: list[float]
) -> None:
    clock, log, pauses = Clock(), Growing(), []
    real = asyncio.sleep

    async def sleep(delay: float) -> None:
        if delay:
            pauses.append(delay)
        await real(0)

    monkeypatch.setattr(stream_live, "monotonic", clock)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    log.further = further
    client, closing, live = Client(clock, push_s), asyncio.Event(), LiveRuns(log)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        serving = group.create_task(live.run(closing))
        await real(0)
        assert live.park(Watcher(-1, client), STREAM, EventFilter(frozenset({"note"})))
        for seq in range(2):
            await log.append(STREAM, [NewEvent("note", b"%d" % seq)], expected_seq=seq - 1)
            assert (await client.pushed.get()).endswith(b"%d" % seq)
        await log.append(STREAM, [NewEvent("other", b"")], expected_seq=1)  # the second push is behind it
        closing.set()
        await serving
    assert pauses == pytest.approx(expected)
