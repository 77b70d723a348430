"""The embedded Log: one SQLite file, a thread that writes it, and the tail from which most is read."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from time import perf_counter

import structlog

from service.errors import LogUnavailable
from service.log import Appended, NewEvent, Recorded
from service.log.checks import check_append
from service.log.meter import Meter
from service.log.reader import IndexDamaged, Reader
from service.log.room import Room
from service.log.store import Store, opened
from service.log.tail import Tail
from service.log.writer import Request, Told, Writer

APPENDS_WAITING_MAX = 1_000  # handed to the writer and not answered; the next append waits
LOOKED_AT = 500  # events at once, where the index of types is damaged

Answer = asyncio.Future[Appended]
Ticket = tuple[Answer, float]  # and when it was asked for
diagnostics = structlog.get_logger("tailrace.log")


class SqliteLog:
    """Implements Log. Used from one event loop; the caller holds the lock of the path (lock.py)."""

    def __init__(self, path: Path, store: Store, meter: Meter | None = None) -> None:
        self._meter = meter
        self._reader = Reader(path, files=store.files)
        self._tail = Tail(store.position, store.last_of)
        self._room = Room(APPENDS_WAITING_MAX)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._index_damaged = False  # as far as anybody has met it
        self._requests: list[Request[Ticket]] = []
        self._turn_at = 0.0  # one look at the clock for all appends of one turn of the loop
        self._writer: Writer[Ticket] = Writer(path, store, self._tell)

    @classmethod
    def open(cls, path: Path, meter: Meter | None = None) -> "SqliteLog":
        """Open the log at ``path``, created or brought up to date if need be. Raises LogUnavailable."""
        return cls(path, opened(path), meter)

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be appended at present, None when all is well."""
        return "the log is closed" if self._closed else self._writer.unavailable

    @property
    def events(self) -> int:
        """How many events it holds."""
        return self._tail.position  # positions begin with 1 and have no gap

    @property
    def appends_waiting(self) -> int:
        """How many appends have no answer yet."""
        return APPENDS_WAITING_MAX - self._room.free + len(self._room)

    async def append(self, stream: str, events: Sequence[NewEvent], *, expected_seq: int) -> Appended:
        """Append with whatever else waits; a caller that is cancelled loses only the answer."""
        size = check_append(events)
        asked_at = None
        if not self._room.take_now():
            asked_at = perf_counter()
            await self._room.take()
        if self._closed:
            self._room.give()
            raise LogUnavailable("the log is closed")
        self._loop = asyncio.get_running_loop()
        answer: Answer = self._loop.create_future()
        if not self._requests:
            self._turn_at = perf_counter()
            self._loop.call_soon(self._hand_over)
        ticket = answer, asked_at or self._turn_at
        self._requests.append(Request(stream, events, expected_seq, size, ticket))
        return await answer

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[Recorded]:
        """Return a page from the tail, or from the disk (then of 1 MiB at most)."""
        page = self._tail.read(stream, after=after, limit=limit)
        if page is None:
            page = self._reader.page(stream, after=after, limit=limit, upto=self._tail.floor)
        return page

    async def read_all(
        self, *, after: int, limit: int, types: Collection[str] | None = None
    ) -> Sequence[Recorded]:
        """Return a page from the tail, or from the disk (then of 1 MiB at most)."""
        page = self._tail.read_all(after=after, limit=limit, types=types)
        if page is None:
            floor = self._tail.floor
            try:
                page = self._reader.page_all(after=after, limit=limit, types=types, upto=floor)
            except IndexDamaged:
                page = await self._look_for(types or (), after=after, limit=limit, upto=floor)
            if not page:
                page = self._tail.read_all(after=floor, limit=limit, types=types)
            if page is None:  # the tail has moved on while each event was looked at
                return await self.read_all(after=floor, limit=limit, types=types)
        return page

    async def wait(self, stream: str | None, *, after: int, types: Collection[str] | None = None) -> int:
        """Sleep, or when there is something already, only let the others have a turn.

        A look at the head of a stream (``after=-2``) is no wait, and takes no turn.
        """
        if stream is None:
            if self._tail.last_position(types) <= after:
                await self._tail.sleepers.sleep_all(types)
            else:
                await asyncio.sleep(0)
            return self._tail.position
        last_seq = self._last_seq(stream)
        if last_seq > after:
            if after > -2:
                await asyncio.sleep(0)
            return last_seq
        await self._tail.sleepers.sleep(stream)
        return self._last_seq(stream)

    async def close(self) -> None:
        """Store what has been handed in, answer it, and release the file; nothing is read any more."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._reader.close()  # first: only who can write leaves a single file behind as the last
            await asyncio.to_thread(self._writer.close)
            await asyncio.sleep(0)  # the last answers are on their way through the loop
            self._reader.close()  # who still read meanwhile

    async def _look_for(
        self, types: Collection[str], *, after: int, limit: int, upto: int
    ) -> Sequence[Recorded]:
        """Look at each event, since no index leads to those of ``types``. Raises Damaged, LogUnavailable."""
        page: Sequence[Recorded] = ()
        while after < upto and not page:
            looked_at = self._reader.page_all(after=after, limit=LOOKED_AT, types=None, upto=upto)
            after = looked_at[-1].position if looked_at else upto
            page = [event for event in looked_at if event.type in types]
            await asyncio.sleep(0)
        if not self._index_damaged:  # and not the event that it leads to
            self._index_damaged = True
            diagnostics.error("the index of types is damaged, events are looked for one by one")
        return page[:limit]

    def _last_seq(self, stream: str) -> int:
        last_seq = self._tail.last_seq(stream)
        if last_seq is None:
            last_seq = self._reader.last_seq(stream, upto=self._tail.floor)
        return last_seq

    def _hand_over(self) -> None:
        # All that one turn of the loop has brought, at once: the thread would interrupt it at the first.
        if self._requests:
            self._writer.put(self._requests)
            self._requests = []

    def _tell(self, told: Told[Ticket]) -> None:
        # In the writer's thread. No loop, or one that has ended: nobody waits who could be told.
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._take, told)
            except RuntimeError:
                self._loop = None

    def _take(self, told: Told[Ticket]) -> None:
        if told.resumed is not None:
            self._tail.reset(told.resumed.position, told.resumed.last_of)
        for _, staged in told.answers:
            if staged.events:
                self._tail.push(staged.events)
        for (answer, _), staged in told.answers:
            result = staged.answer
            self._room.give()
            if answer.done():
                continue  # whoever waited has been cancelled; what was stored stays
            if isinstance(result, Appended):
                answer.set_result(result)
            else:
                answer.set_exception(result)
                if self._meter is not None:
                    self._meter.refused(result)
        if self._meter is not None:
            _measure(self._meter, told)


def _measure(meter: Meter, told: Told[Ticket]) -> None:
    now = perf_counter()
    if told.flush_s is not None:
        meter.committed(seconds=told.flush_s, appends=len(told.answers), events=told.events, size=told.size)
    # Those of one turn of the loop share a moment, so this is a few calls, not one for each append.
    for asked_at, appends in Counter([ticket[1] for ticket, _ in told.answers]).items():
        meter.answered(seconds=now - asked_at, appends=appends)
