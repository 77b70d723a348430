"""Walks through stored history in bounded pages: what passes, and how far the walk has come.

A place is a seq in one run's stream, or a position in the log: whatever the walk's cursor counts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import NamedTuple

from msgspec import Raw

from service.api.filters import Passes
from service.errors import Damaged
from service.log import Log, Recorded

PAGE_EVENTS = 500  # read at once; the loop gets a turn after each
SCAN_EVENTS_MAX = 20_000  # looked at for one page of an answer, about 50 ms of the loop in pieces
ANSWER_BYTES_MAX = 4 * 1024 * 1024  # the event that passes it is the answer's last


class Stretch(NamedTuple):
    """What passed of one read page: each event with its place, and the place that the walk has come to."""

    events: Sequence[tuple[int, Recorded]]
    looked_at: int
    reached: int


Walk = AsyncIterator[Stretch]
Passing = Callable[[Sequence[Recorded]], Sequence[Recorded]]


async def walk_run(log: Log, stream: str, *, after: int, head: int, passing: Passing) -> Walk:
    """Walk one stream from behind the seq ``after`` to the seq ``head``. Raises Damaged, LogUnavailable."""
    while after < head:
        page = await log.read(stream, after=after, limit=min(PAGE_EVENTS, head - after))
        after = page[-1].seq
        yield Stretch([(event.seq, event) for event in passing(page)], len(page), after)
        await asyncio.sleep(0)


async def walk_log(log: Log, *, after: int, head: int, types: Collection[str] | None, passes: Passes) -> Walk:
    """Walk the log, or its events of ``types``, from behind the position ``after`` to ``head``.

    Raises Damaged, LogUnavailable.
    """
    while after < head:
        page = await log.read_all(after=after, limit=PAGE_EVENTS, types=types)
        after = page[-1].position if page else head
        events = [(event.position, event) for event in page if event.position <= head and passes(event)]
        yield Stretch(events, len(page), min(after, head))
        await asyncio.sleep(0)


async def walk_streams(log: Log, streams: Sequence[str], *, after: int, head: int, passes: Passes) -> Walk:
    """Walk some streams together, in the log's order: what ``walk_log`` would find of them, without the rest.

    Raises Damaged, LogUnavailable.
    """
    ends = {stream: await log.wait(stream, after=-2) for stream in streams}
    seqs = {stream: await _last_before(log, stream, ends[stream], after) for stream in streams}
    while after < head:
        pages = [
            await log.read(stream, after=seqs[stream], limit=PAGE_EVENTS)
            for stream in streams
            if seqs[stream] < ends[stream]
        ]
        # Behind the end of an unfinished page may lie events that come before those of another stream.
        complete = min([page[-1].position for page in pages if page[-1].seq < ends[page[0].stream]] + [head])
        events = sorted(
            ((event.position, event) for page in pages for event in page if event.position <= complete),
            key=lambda placed: placed[0],
        )
        for _, event in events:
            seqs[event.stream] = event.seq
        after = complete
        yield Stretch([placed for placed in events if passes(placed[1])], len(events), after)
        await asyncio.sleep(0)


async def _last_before(log: Log, stream: str, end: int, position: int) -> int:
    """Return the last seq of ``stream`` that is not behind ``position``, -1 if there is none."""
    low, high = -1, end if position > 0 else -1
    while low < high:
        middle = (low + high + 1) // 2
        (event,) = await log.read(stream, after=middle - 1, limit=1)
        if event.position <= position:
            low = middle
        else:
            high = middle - 1
    return low


class Collected(NamedTuple):
    """One page of an answer; ``next`` is the place behind which the next one begins (None: there is none)."""

    data: list[Raw]
    next: int | None


async def collect(walk: Walk, *, after: int, head: int, limit: int) -> Collected:
    """Return the first ``limit`` events of ``walk``, fewer where its bounds are met: then ``next`` is set.

    Raises Damaged only if that is what the page would begin with; LogUnavailable.
    """
    data: list[Raw] = []
    looked_at = size = 0
    reached = after
    try:
        async for stretch in walk:
            for place, event in stretch.events:
                data.append(Raw(event.data))
                size += len(event.data)
                if len(data) == limit or size >= ANSWER_BYTES_MAX:
                    return Collected(data, place if place < head else None)
            reached = stretch.reached
            looked_at += stretch.looked_at
            if looked_at >= SCAN_EVENTS_MAX:
                break
    except Damaged:
        if reached == after:
            raise
    return Collected(data, reached if reached < head else None)
