"""The newest events, and the place where readers sleep until there are newer ones.

Knows no storage: whoever commits, pushes here. Losing a Tail loses nothing. What has been pushed is
what is visible: a reader of the store goes no further than ``position``.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from service.log import Recorded

TAIL_BYTES_MAX = 8 * 1024 * 1024  # of the whole tail, all streams together
EVENT_BYTES = 250  # what an event weighs in memory beside its data


class Sleepers:
    """Who waits for which stream, or for events of which types: a condition that knows no lock.

    Asleep costs one future; a stream that nobody waits for costs nothing. ``wake`` after the events are
    there, ``sleep`` only after looking: between the two there must be no other await.
    """

    def __init__(self) -> None:
        # Dicts for sets: they wake in the order in which they fell asleep.
        self._of_stream: dict[str, dict[asyncio.Future[None], None]] = {}
        self._of_log: dict[asyncio.Future[None], Collection[str] | None] = {}

    async def sleep(self, stream: str) -> None:
        """Return after the next append to ``stream``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._of_stream.setdefault(stream, {})[future] = None
        try:
            await future
        finally:
            asleep = self._of_stream.get(stream)
            if asleep is not None:
                asleep.pop(future, None)
                if not asleep:
                    del self._of_stream[stream]

    async def sleep_all(self, types: Collection[str] | None) -> None:
        """Return after the next append that holds one of ``types`` (None: any)."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._of_log[future] = types
        try:
            await future
        finally:
            self._of_log.pop(future, None)

    def wake(self, events: Sequence[Recorded]) -> None:
        """Wake whoever waits for one of ``events``: all of one append."""
        for future in self._of_stream.pop(events[0].stream, ()):
            _wake(future)
        if self._of_log:
            present = {event.type for event in events}
            for future, types in list(self._of_log.items()):
                if types is None or not present.isdisjoint(types):
                    del self._of_log[future]
                    _wake(future)

    def wake_all(self) -> None:
        """Wake everyone: what happened is not known in detail."""
        for futures in self._of_stream.values():
            for future in futures:
                _wake(future)
        for future in self._of_log:
            _wake(future)
        self._of_stream.clear()
        self._of_log.clear()

    def __len__(self) -> int:
        return len(self._of_log) + sum(map(len, self._of_stream.values()))


class Tail:
    """The newest events per stream and of the whole log, at most ``bytes_max`` of them."""

    def __init__(self, position: int, last_of: Mapping[str, int], *, bytes_max: int = TAIL_BYTES_MAX) -> None:
        self.sleepers = Sleepers()
        self._bytes_max = bytes_max
        self.reset(position, last_of)

    def reset(self, position: int, last_of: Mapping[str, int]) -> None:
        """Forget every event; the log ends at ``position``, and events of a type at ``last_of[type]``."""
        self.position = position
        self._last_of = dict(last_of)
        self._appends: deque[tuple[Sequence[Recorded], int]] = deque()
        self._all: list[Recorded] = []
        self._streams: dict[str, list[Recorded]] = {}
        self._bytes = 0
        self.sleepers.wake_all()

    @property
    def floor(self) -> int:
        """Where it begins: the position up to which nothing is here, and all is stored."""
        return self._all[0].position - 1 if self._all else self.position

    def push(self, events: Sequence[Recorded]) -> None:
        """Take the events of one append, which is committed, in the order of positions; wake who waits."""
        first = events[0]
        assert first.position == self.position + 1
        self.position = events[-1].position
        self._all += events
        stream = self._streams.get(first.stream)
        if stream is None:
            self._streams[first.stream] = list(events)
        else:
            stream += events
        size = EVENT_BYTES * len(events)
        for event in events:
            self._last_of[event.type] = event.position
            size += len(event.data)
        self._appends.append((events, size))
        self._bytes += size
        if self._bytes > self._bytes_max:
            self._shrink()
        self.sleepers.wake(events)

    def read(self, stream: str, *, after: int, limit: int) -> Sequence[Recorded] | None:
        """Return the page, or None when it does not begin here."""
        events = self._streams.get(stream)
        if events is None or max(after + 1, 0) < events[0].seq:
            return None
        start = max(after + 1, 0) - events[0].seq
        return events[start : start + limit]

    def read_all(self, *, after: int, limit: int, types: Collection[str] | None) -> Sequence[Recorded] | None:
        """Return the page, or None when it begins before ``floor``."""
        if after >= self.last_position(types):
            return ()
        if not self._all or after + 1 < self._all[0].position:
            return None
        start = after + 1 - self._all[0].position
        if types is None:
            return self._all[start : start + limit]
        found = []
        for index in range(start, len(self._all)):
            event = self._all[index]
            if event.type in types:
                found.append(event)
                if len(found) == limit:
                    break
        return found

    def last_seq(self, stream: str) -> int | None:
        """Return the stream's last seq, or None when nothing of it is here."""
        events = self._streams.get(stream)
        return events[-1].seq if events else None

    def last_position(self, types: Collection[str] | None) -> int:
        """Return the position of the last event of ``types`` (None: any; 0: there is none)."""
        if types is None:
            return self.position
        return max((self._last_of.get(type_, 0) for type_ in types), default=0)

    def _shrink(self) -> None:
        gone = 0
        while self._bytes > self._bytes_max * 63 // 64:  # many at once: it moves all that is left
            events, size = self._appends.popleft()
            self._bytes -= size
            gone += len(events)
            stream = self._streams[events[0].stream]
            del stream[: len(events)]
            if not stream:
                del self._streams[events[0].stream]
        del self._all[:gone]


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
