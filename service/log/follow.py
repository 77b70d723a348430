"""The catch-up subscription: the only place where history becomes live.

There is no moment of switching over: it reads, and only where a read finds nothing it sleeps.
`walk_all` is for who needs no more than what was there at one moment.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

from service.errors import Damaged
from service.log import Log, Recorded

PAGE_EVENTS = 500  # 0.4 ms of the loop when it comes from the disk


async def follow(
    log: Log, stream: str, *, after: int, page_events: int = PAGE_EVENTS
) -> AsyncIterator[Sequence[Recorded]]:
    """Yield every event of ``stream`` with seq > ``after``, in pages of 1 to ``page_events``, for ever.

    None is skipped or repeated. The loop gets a turn between pages. Raises Damaged, LogUnavailable.
    """
    while True:
        page = await log.read(stream, after=after, limit=page_events)
        if page:
            after = page[-1].seq
            yield page
        if len(page) == page_events:
            await asyncio.sleep(0)
        else:
            await log.wait(stream, after=after)  # a turn of the loop, or more if that was all


async def follow_all(
    log: Log, *, after: int, types: Collection[str] | None = None, page_events: int = PAGE_EVENTS
) -> AsyncIterator[Sequence[Recorded]]:
    """Yield every event (of ``types``, if given) with position > ``after``, as ``follow`` does."""
    while True:
        page = await log.read_all(after=after, limit=page_events, types=types)
        if page:
            after = page[-1].position
            yield page
        if len(page) == page_events:
            await asyncio.sleep(0)
        else:
            await log.wait(None, after=after, types=types)


async def walk_all(
    log: Log, *, upto: int, types: Collection[str], page_events: int = PAGE_EVENTS
) -> AsyncIterator[Sequence[Recorded]]:
    """Yield every event of ``types`` up to the position ``upto``, in pages, the last of which may go further.

    The loop gets a turn after each. What is damaged is left out. Raises LogUnavailable.
    """
    after = 0
    while after < upto:
        try:
            page = await log.read_all(after=after, limit=page_events, types=types)
        except Damaged as error:
            assert error.position is not None  # noqa: PT017  not a test: read_all always gives it
            after = error.position
        else:
            if page:
                yield page
            after = page[-1].position if page else upto
        await asyncio.sleep(0)
