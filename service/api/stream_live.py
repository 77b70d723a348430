"""Runs that are watched live: one reader for all who have caught up, who writes the same bytes to each.

What costs is to wake a thousand tasks for an event. So a client that has read everything is parked: its
own task sleeps, and the run's one tailer frames what is new once and pushes it to every parked client.
One that cannot take more right now is sent back to read by itself, from where it stands.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic

from service.api.filters import EventFilter
from service.api.stream_meter import StreamMeter
from service.domain.events import RunComplete
from service.errors import TailraceError
from service.log import Log, Recorded
from service.log.follow import follow
from service.wire.frames import text_frames
from service.wire.parking import Parking

PUSHES_PER_TURN = 128  # then the loop serves others: about a millisecond
QUICK_FLUSH_S = 0.001  # a flush that takes no longer is not followed by a pause
KEEPING_UP = 1  # events that may have come during a flush without being a backlog
PAUSE_MAX_S = 0.05

Key = tuple[str, EventFilter]


class Watcher:
    """A client of a run. ``after``: the seq behind which it goes on. ``crowd``: who it is parked with."""

    __slots__ = ("after", "crowd", "parking")

    def __init__(self, after: int, parking: Parking | None) -> None:
        self.after = after
        self.parking = parking
        self.crowd: Crowd | None = None

    def release(self) -> None:
        """Go back to read by itself."""
        if self.crowd is not None:
            self.crowd.release(self)


class Crowd:
    """Those who watch one run through one filter, all of them behind ``after`` or, ``ahead``, further on."""

    def __init__(self, key: Key, after: int, crowds: "dict[Key, Crowd]") -> None:
        self.key = key
        self.after = after
        self.watchers: dict[Watcher, None] = {}
        self.ahead: dict[Watcher, None] = {}
        self.tailer: asyncio.Task[None] | None = None
        self._crowds = crowds
        crowds[key] = self

    def __len__(self) -> int:
        return len(self.watchers) + len(self.ahead)

    def release(self, watcher: Watcher) -> None:
        """Send ``watcher`` back to read by itself."""
        self.drop(watcher)
        assert watcher.parking is not None
        watcher.parking.wake()

    def release_all(self) -> None:
        """Send everyone back to read by themselves."""
        for watcher in [*self.watchers, *self.ahead]:
            self.release(watcher)

    def drop(self, watcher: Watcher) -> None:
        """Forget ``watcher``; with the last one the crowd ends."""
        watcher.crowd = None
        self.watchers.pop(watcher, None)
        self.ahead.pop(watcher, None)
        if not self:
            self.end()

    def advance(self, seq: int) -> Sequence[Watcher]:
        """Be behind ``seq`` from now on, together with those who were further ahead; return these."""
        self.after = seq
        if not self.ahead:
            return ()
        late = [watcher for watcher in self.ahead if watcher.after <= seq]
        for watcher in late:
            del self.ahead[watcher]
            self.watchers[watcher] = None
        return late

    def end(self) -> None:
        """Send everyone back, and take no one any more."""
        if self._crowds.get(self.key) is self:
            del self._crowds[self.key]
        self.release_all()
        if self.tailer is not None:
            self.tailer.cancel()


class LiveRuns:
    """The crowds of all runs. ``run`` must be running for anyone to be parked."""

    def __init__(self, log: Log, meter: StreamMeter | None = None) -> None:
        self.meter = meter or StreamMeter()
        self._log = log
        self._crowds: dict[Key, Crowd] = {}
        self._tailers: asyncio.TaskGroup | None = None

    def __len__(self) -> int:
        return sum(map(len, self._crowds.values()))

    @property
    def open(self) -> bool:
        """Tell whether anyone can be parked at all."""
        return self._tailers is not None

    async def run(self, closing: asyncio.Event) -> None:
        """Serve those who are parked until ``closing`` is set; then all are woken, and none parks again."""
        async with asyncio.TaskGroup() as tailers:
            self._tailers = tailers
            await closing.wait()
            self._tailers = None
            for crowd in list(self._crowds.values()):
                crowd.end()

    def park(self, watcher: Watcher, stream: str, where: EventFilter) -> bool:
        """Push to ``watcher`` what comes behind ``watcher.after`` and passes ``where``, until it is woken.

        Returns False when it has to read by itself: there is more already, or this is not ``open``.
        """
        if self._tailers is None:
            return False
        key = stream, where
        crowd = self._crowds.get(key)
        if crowd is None:
            crowd = Crowd(key, watcher.after, self._crowds)
            crowd.tailer = self._tailers.create_task(self._tail(crowd))
        if watcher.after < crowd.after:
            return False
        watcher.crowd = crowd
        (crowd.watchers if watcher.after == crowd.after else crowd.ahead)[watcher] = None
        return True

    def leave(self, watcher: Watcher) -> None:
        """Park ``watcher`` no longer; it is not woken."""
        if watcher.crowd is not None:
            watcher.crowd.drop(watcher)

    async def _tail(self, crowd: Crowd) -> None:
        """Push what is new to a crowd until nobody is left, or the run is over, or it cannot be read."""
        stream, where = crowd.key
        try:
            async for page in follow(self._log, stream, after=crowd.after):
                over = page[-1].type == RunComplete.type
                events = page[:-1] if over else page  # the seal is for each to read, and to end with
                if events:
                    await self._flush(crowd, events[-1].seq, where.passing(events))
                if over:
                    return
        except TailraceError:
            pass  # who reads by itself meets the same, and knows how to tell its client
        finally:
            crowd.tailer = None
            crowd.end()

    async def _flush(self, crowd: Crowd, last_seq: int, passing: Sequence[Recorded]) -> None:
        """Push ``passing``; under load the next events are then left to gather for as long as that took.

        The same number of events in fewer and larger writes is what lets a thousand clients keep up. Before
        there is a backlog, to wait would only make the last of them late.
        """
        now = monotonic
        began_at = now()
        watchers = list(crowd.watchers)
        late = crowd.advance(last_seq)
        await self._push_all(crowd, watchers, passing, last_seq)
        for watcher in late:
            await self._push_all(crowd, [watcher], _behind(passing, watcher.after), last_seq)
        took_s = now() - began_at
        self.meter.push_s.observe(took_s)
        if took_s > QUICK_FLUSH_S:
            waiting = await self._log.wait(crowd.key[0], after=-2) - last_seq
            if waiting > KEEPING_UP:
                await asyncio.sleep(min(took_s, PAUSE_MAX_S))

    async def _push_all(
        self, crowd: Crowd, watchers: Sequence[Watcher], events: Sequence[Recorded], last_seq: int
    ) -> None:
        texts = list(text_frames(events))
        size = sum([len(text) for text, _ in texts])
        for start in range(0, len(watchers), PUSHES_PER_TURN):
            if start:
                await asyncio.sleep(0)
            some = watchers[start : start + PUSHES_PER_TURN]
            for text, seq in texts:
                self.meter.fell_behind += _push(crowd, some, text, seq)
            taken = 0
            for watcher in some:
                if watcher.crowd is crowd:
                    watcher.after = last_seq  # what the filter hides needs no push
                    taken += 1
            # Who has left, or fell behind within the texts, is not counted: neither is wholly delivered.
            self.meter.delivered(events=taken * len(events), size=taken * size)


def _push(crowd: Crowd, watchers: Sequence[Watcher], text: bytes | memoryview, seq: int) -> int:
    """Push ``text`` to each who is still there, and return how many could not take it."""
    fell = 0
    for watcher in watchers:
        if watcher.crowd is crowd:  # not one that has left, or was sent back, meanwhile
            assert watcher.parking is not None
            if watcher.parking.push(text):
                watcher.after = seq
            else:
                crowd.release(watcher)
                fell += 1
    return fell


def _behind(events: Sequence[Recorded], after: int) -> Sequence[Recorded]:
    return [event for event in events if event.seq > after]
