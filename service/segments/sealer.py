"""Seals what is worth it, one stretch at a time, at a pace that leaves the machine to whoever works.

Worth it are long runs that are over, in the order of their ends, and before them whatever somebody replays.
"""

import asyncio
import errno
import sqlite3
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import structlog

from service.errors import Damaged, LogUnavailable
from service.log import Log, Recorded
from service.segments.cut import STRETCH_EVENTS_MAX, Cutter
from service.segments.file import Mark
from service.segments.segment import Segment
from service.segments.shelf import Shelf

PAGE_EVENTS = 200  # a quarter of a millisecond of the loop
ENDED_PAGE_EVENTS = 500
WANTED_MAX = 64  # streams; further wishes are not heard until there is room
CUTTERS_MAX = 8  # streams that are sealed by turns without reading the start of a stretch again, 1.3 MiB each
OVER_MAX = 10_000  # streams known to have nothing left to seal
GATHER_S = 0.1  # after a run has ended: others end, too
REMEMBER_INTERVAL_S = 10.0  # short runs that ended since, or so many of them, are looked at again at a start
REMEMBER_RUNS = 5_000
RETRY_S = 2.0  # while the log fails or the disk is full
# While others work, sealing takes at most a tenth of the time.
PAUSE_SHARE = 9
LATE_S = 0.001  # a turn of the loop that takes longer shows that others work
PAUSE_MAX_S = 0.25
FULL = {errno.ENOSPC, errno.EDQUOT}
NO_ROOM = "there is no space to spare on the disk"

diagnostics = structlog.get_logger("tailrace.segments")


class Sealer:
    """Seals onto ``shelf`` what it reads from ``log``.

    ``room`` tells whether the disk has space to spare; ``now`` is a monotonic clock in seconds.
    """

    def __init__(
        self, log: Log, shelf: Shelf, *, seal_type: str, room: Callable[[], bool], now: Callable[[], float]
    ) -> None:
        self._log = log
        self._shelf = shelf
        self._seal_type = seal_type
        self._room = room
        self._now = now
        self._wanted: dict[str, None] = {}
        self._ended: deque[Recorded] = deque()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._cutters: OrderedDict[str, Cutter] = OrderedDict()
        self._position = 0
        self._head = -1
        self._remembered_at = now()
        self._unremembered = 0
        self._asleep: asyncio.Timeout | None = None
        self._awake = False
        self._waiting_for: str | None = None
        shelf.trouble = self.wake

    @property
    def pending(self) -> int:
        """How many runs wait to be looked at, as far as is known."""
        return len(self._wanted) + len(self._ended)

    # What others say

    def want(self, stream: str) -> None:
        """Seal ``stream`` soon. Not heard when too many are wanted already."""
        if stream in self._over or stream in self._wanted or len(self._wanted) >= WANTED_MAX:
            return
        self._wanted[stream] = None
        self.wake()

    def wake(self) -> None:
        """Look again for something to do."""
        self._awake = True
        if self._asleep is not None:
            self._asleep.reschedule(0)
            self._asleep = None

    # What it does

    async def run(self, position: int) -> None:
        """Seal until cancelled; runs that ended up to ``position`` are sealed. Raises what ``Shelf`` does."""
        self._position = position
        self._ended.clear()
        self._cutters.clear()
        self._over.clear()
        while True:
            try:
                await self._step()
            except LogUnavailable as error:
                await self._wait(f"the log: {error}")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
                    raise
                await self._wait(NO_ROOM)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                await self._wait(NO_ROOM)

    async def _step(self) -> None:
        """Seal one stretch, or sleep until there may be one."""
        self._awake = False
        for damaged in await self._shelf.mend():
            self._over.pop(damaged, None)
            self.want(damaged)
        stream = await self._next()
        if stream is None:
            await self._sleep()
        elif self._room():
            await self._seal_next(stream)
        else:
            await self._wait(NO_ROOM)

    async def _next(self) -> str | None:
        while not self._wanted:
            while self._ended:
                event = self._ended[0]
                if event.seq > STRETCH_EVENTS_MAX:
                    return event.stream
                await self._leave_behind(event)
            began = self._now()
            try:
                page = await self._log.read_all(
                    after=self._position, limit=ENDED_PAGE_EVENTS, types=(self._seal_type,)
                )
            except Damaged as error:
                assert error.position is not None  # noqa: PT017  not a test: read_all always gives it
                self._position = error.position
            else:
                if not page:
                    return None
                self._ended.extend(page)
                self._position = page[-1].position
            await self._pause(self._now() - began)
        return next(iter(self._wanted))

    async def _sleep(self) -> None:
        if self._awake:  # somebody has spoken while the log was read
            return
        try:
            async with asyncio.timeout(None) as self._asleep:
                await self._log.wait(None, after=self._position, types=(self._seal_type,))
                await asyncio.sleep(GATHER_S)
        except TimeoutError:
            pass  # woken
        finally:
            self._asleep = None

    async def _seal_next(self, stream: str) -> None:
        began = self._now()
        wanted = stream in self._wanted
        self._wanted.pop(stream, None)  # first: a wish from now on may know of more than is read here
        sealed = True
        try:
            sealed = await self._seal(stream)
        except BaseException:
            self._cutters.pop(stream, None)  # it may have given the stretch away
            raise
        finally:
            if wanted and sealed:
                self._wanted[stream] = None  # again, after the others
        if sealed:
            self._waiting_for = None
            await self._pause(self._now() - began)

    async def _seal(self, stream: str) -> bool:
        """Seal the next stretch, if there is one."""
        cutter = self._cutter(stream)
        try:
            stretch = await self._read(stream, cutter)
        except Damaged as error:
            diagnostics.warning("not sealed any further", stream=stream, damaged=error.seq)
            cutter.over, stretch = True, None
        if stretch is None:
            await self._done(stream, over=cutter.over)
            return False
        await self._shelf.put(stream, Segment.pack(stretch), Mark.at(stretch[-1]))
        return True

    def _cutter(self, stream: str) -> Cutter:
        end = self._shelf.end(stream)
        cutter = self._cutters.pop(stream, None)
        if cutter is None or cutter.end != end:
            cutter = Cutter(end, self._seal_type)
        self._cutters[stream] = cutter
        if len(self._cutters) > CUTTERS_MAX:
            self._cutters.popitem(last=False)
        return cutter

    async def _read(self, stream: str, cutter: Cutter) -> Sequence[Recorded] | None:
        """Return the next stretch, None if there is none (yet)."""
        while (stretch := cutter.take()) is None and not cutter.over:
            page = await self._log.read(stream, after=cutter.after, limit=PAGE_EVENTS)
            if not page:
                return None
            cutter.add(page)
            await asyncio.sleep(0)
        return stretch

    async def _done(self, stream: str, *, over: bool) -> None:
        """Turn to something else: ``stream`` has no stretch left, and if it is ``over`` never will."""
        if over:
            self._cutters.pop(stream, None)
            self._over[stream] = None
            if len(self._over) > OVER_MAX:
                self._over.popitem(last=False)
        if self._ended and self._ended[0].stream == stream:
            await self._leave_behind(self._ended[0])

    async def _leave_behind(self, event: Recorded) -> None:
        """Go on behind the end of a run; once in a while, and behind every long one, that is remembered."""
        now = self._now()
        self._unremembered += 1
        if (
            event.seq > STRETCH_EVENTS_MAX
            or self._unremembered >= REMEMBER_RUNS
            or now - self._remembered_at > REMEMBER_INTERVAL_S
        ):
            await self._shelf.remember(Mark.at(event))
            self._remembered_at, self._unremembered = now, 0
        self._ended.popleft()

    async def _pause(self, took_s: float) -> None:
        """Let others go first, if there are any: who appends, or whoever else keeps the loop."""
        began = self._now()
        await asyncio.sleep(0)
        late = self._now() - began > LATE_S
        head = await self._log.wait(None, after=-1)
        moved, self._head = head != self._head, head
        if moved or late:
            await asyncio.sleep(min(took_s * PAUSE_SHARE, PAUSE_MAX_S))

    async def _wait(self, reason: str) -> None:
        if reason != self._waiting_for:
            diagnostics.warning("sealing waits", reason=reason)
        self._waiting_for = reason
        await asyncio.sleep(RETRY_S)
