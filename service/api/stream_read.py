"""One client's way through a run: from its cursor, filtered, live at the end, until the seal."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from typing import Literal

from service.api.filters import After, EventFilter
from service.api.stream_query import StreamQuery
from service.api.turns import Turns
from service.domain.events import RunComplete, RunStart, RunStatus, decode_event
from service.errors import Conflict, Damaged, NotFound
from service.log import Log, Recorded
from service.segments import Segment, Segments
from service.wire.frames import Frames
from service.wire.stretch import Joined, Rows, Stretch

FIRST_PAGE_EVENTS = 16  # small: the first message should not wait for a page to be framed
PAGE_EVENTS = 500
# Of a client that takes its time a page is what it takes in half a second: a thousand of them would else
# hold a page each, and each page that is read keeps everybody waiting for two milliseconds.
PAGE_TAKEN_IN_S = 0.5
SLOW_PAGE_EVENTS = 50
Visible = Callable[[str], Awaitable[bool]]

LONG_PAST_EVENTS = 1_024  # behind the cursor: rows so far back are worth to be sealed for the next reader


class Reading:
    """A run's events that pass a filter, stretch by stretch, from a cursor to the seal.

    ``after``: the last seq that was read; whoever gets events in another way moves it on. ``head``: the
    run's last when the reading was opened. ``seal`` and ``hash`` (the chain's head behind it): how the run
    ended, once the reading has come there. ``control``: the client wants to be told all this.
    """

    __slots__ = (
        "_given", "_given_at", "_log", "_segments", "_turns", "after", "control", "hash", "head", "last_seq",
        "run_id", "seal", "status", "stream", "where",
    )  # fmt: skip

    def __init__(
        self,
        log: Log,
        segments: Segments | None,
        turns: Turns,
        run_id: str,
        after: int,
        head: int,
        query: StreamQuery,
    ) -> None:
        self.run_id = run_id
        self.stream = f"run/{run_id}"
        self.where = query.where
        self.after = after
        self.head = head
        self.status: Literal["queued", "running"] | RunStatus = "running" if head > 0 else "queued"
        self.last_seq = head
        self.seal: RunComplete | None = None
        self.hash = b""
        self.control = query.control
        self._log = log
        # A segment holds every event of its stretch: of use only to who wants them all.
        self._segments = segments if query.where.every_step_event else None
        self._turns = turns
        self._given = 0  # events, the last time, and when
        self._given_at: float | None = None

    async def next(self) -> Stretch | None:
        """Return the next stretch, empty if nothing in it passes; None at the live edge and behind the seal.

        All but the first come in their turn (``Turns``). Raises Damaged at the first damaged event, after
        all before it; LogUnavailable.
        """
        if self.seal is not None:
            return None
        before, asked_at = self.after, monotonic()
        stretch: Stretch | None = None
        if self._given_at is not None:
            await self._turns.next()
            stretch = await self._sealed()
        if stretch is None:
            page = await self._log.read(self.stream, after=self.after, limit=self._page_events(asked_at))
            stretch = Rows(self._passing(page)) if page else None
        self._given, self._given_at = self.after - before, monotonic()
        return stretch

    def _page_events(self, asked_at: float) -> int:
        """Return how many rows to read for a client that took what it was given in the time that is over."""
        if self._given_at is None:
            return FIRST_PAGE_EVENTS
        took_s = max(asked_at - self._given_at, 0.001)
        takes = round(self._given / took_s * PAGE_TAKEN_IN_S)
        # Not much more than the last time: that one may only have gone into buffers that were empty.
        return min(max(min(takes, 2 * self._given), SLOW_PAGE_EVENTS), PAGE_EVENTS)

    async def _sealed(self) -> Stretch | None:
        """Return the rest of the segment in which the cursor stands, if there is one."""
        if self._segments is None:
            return None
        segment = await self._segments.after(self.stream, self.after)
        if segment is None:
            if self.head - self.after > LONG_PAST_EVENTS:
                self._segments.wanted(self.stream, self.after)
            return None
        after, self.after = self.after, segment.last_seq
        return Behind(segment, after)

    async def more(self) -> None:
        """Sleep until the run has more events; may return early. Raises LogUnavailable."""
        await self._log.wait(self.stream, after=self.after)

    def cursor(self) -> int | None:
        """Return the seq behind which it goes on; None if that is the start, and the header is sent, too."""
        if self.after >= 0:
            return self.after
        return None if self._sends(RunStart.type) else 0

    def sends_seal(self) -> bool:
        """Tell whether the seal is among the events that are sent."""
        return self._sends(RunComplete.type)

    def _sends(self, type_: str) -> bool:
        """Tell whether events of no step are sent, of this type."""
        return type_ in self.where.types and self.where.step_id is None

    async def over(self) -> bool:
        """Tell whether the run was finished when the reading was opened. Raises LogUnavailable."""
        return await self._seal_at_head() is not None

    async def look_ahead(self) -> None:
        """Learn how the run stood then. Raises Damaged if its last event is, and the next; LogUnavailable."""
        last = await self._seal_at_head()
        if last is not None:
            seal = seal_of(last)
            self.status, self.last_seq = seal.status, seal.last_seq
            if self.after == self.head:  # behind it nothing follows that the reading could come to
                self.seal, self.hash = seal, last.chain

    async def _seal_at_head(self) -> Recorded | None:
        try:
            (last,) = await self._log.read(self.stream, after=self.head - 1, limit=1)
        except Damaged:
            if self.after == self.head:
                raise
            return None  # what comes before it can still be delivered
        return last if last.type == RunComplete.type else None

    def _passing(self, page: Sequence[Recorded]) -> Sequence[Recorded]:
        last = page[-1]
        self.after = last.seq
        if last.type == RunComplete.type:
            self.seal, self.hash = seal_of(last), last.chain
        return self.where.passing(page)


class Behind:
    """A stretch that is the events of ``segment`` with seq > ``after``."""

    __slots__ = ("_after", "_segment")

    def __init__(self, segment: Segment, after: int) -> None:
        self._segment = segment
        self._after = after

    def __len__(self) -> int:
        return max(0, self.last_seq - self._after)

    @property
    def last_seq(self) -> int:
        """Return the seq of the last event."""
        return self._segment.last_seq

    def text_frames(self) -> Frames:
        """Return the events as WebSocket text frames."""
        return self._segment.text_frames(self._after)

    def server_sent_events(self) -> Joined:
        """Yield the events as server-sent events."""
        return self._segment.server_sent_events(self._after)

    def lines(self) -> Joined:
        """Yield the events, each with a line break behind it."""
        return self._segment.lines(self._after)

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Yield each event's seq and its bytes."""
        return self._segment.payloads(self._after)


async def open_reading(
    log: Log,
    run_id: str,
    query: StreamQuery,
    segments: Segments | None = None,
    *,
    turns: Turns | None = None,
    visible: Visible | None = None,
) -> Reading:
    """Return the reading that ``query`` asks for, once the run exists if that is soon enough for it.

    ``visible`` says whether the run, once it is there, is so to who asks; if not, all goes as if it were not.
    ``turns`` are shared by all who read beside each other.
    Raises NotFound for an unknown run, Conflict for a cursor above the head, Damaged, LogUnavailable.
    """
    stream = f"run/{run_id}"
    head, came = await _existing(log, run_id, query.wait_s, visible)
    if came:
        query = query.of_a_run_to_come()
    if query.after.seq > head:
        raise Conflict(
            f"Run {run_id!r} is at seq {head}: there is no event {query.after.seq} to continue after.",
            runId=run_id, lastSeq=head, after=query.after.seq,
        )  # fmt: skip
    after = await _start(log, stream, head, query.after, query.where)
    reading = Reading(log, segments, turns or Turns(), run_id, after, head, query)
    if query.control or after == head:  # else it shows in time, and the first message does not wait for it
        await reading.look_ahead()
    return reading


async def _existing(log: Log, run_id: str, wait_s: float, visible: Visible | None) -> tuple[int, bool]:
    """Return the head of a run that is there and visible in time, and whether it came. Raises NotFound."""
    stream = f"run/{run_id}"
    head = await log.wait(stream, after=-2)
    if head >= 0 and (visible is None or await visible(run_id)):
        return head, False
    try:
        async with asyncio.timeout(wait_s):
            while head < 0:
                head = await log.wait(stream, after=-1)
            if visible is None or await visible(run_id):
                return head, True
            await asyncio.Event().wait()  # its time has to pass as if the run were not there
    except TimeoutError:
        pass
    raise NotFound("run", run_id)


def seal_of(event: Recorded) -> RunComplete:
    """Return the seal that ``event`` holds, the only event of a stream that is ever decoded in full."""
    payload = decode_event(event.data).payload
    assert isinstance(payload, RunComplete)
    return payload


async def _start(log: Log, stream: str, head: int, after: After, where: EventFilter) -> int:
    if after.count is None:
        return after.seq
    if after.count == 0:
        return head
    if where.everything:
        return max(-1, head - after.count)
    missing = after.count
    below = head + 1
    while below > 0:
        above = max(-1, below - 1 - PAGE_EVENTS)
        passing = await _passing_seqs(log, stream, above, below, where)
        if len(passing) >= missing:
            return passing[-missing] - 1
        missing -= len(passing)
        below = above + 1
        await asyncio.sleep(0)
    return -1


async def _passing_seqs(log: Log, stream: str, above: int, below: int, where: EventFilter) -> list[int]:
    """Return the seqs between ``above`` and ``below`` (both exclusive) that pass, in order."""
    seqs: list[int] = []
    while above + 1 < below:
        page = await log.read(stream, after=above, limit=below - 1 - above)
        seqs.extend(event.seq for event in where.passing(page))
        above = page[-1].seq
    return seqs
