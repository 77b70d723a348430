"""A log with runs in it, and its segments at work."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.log import APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Log, NewEvent, Recorded
from service.segments import Segment, Segments

SEAL = "run_complete"
DEADLINE_S = 60.0


def event(number: int, length: int) -> NewEvent:
    return NewEvent("step_log", (b"%d " % number * (length // 2 + 1))[:length])


async def append(log: Log, stream: str, events: Iterable[NewEvent], after: int = -1) -> int:
    """Append in as few batches as may be and return the last seq."""
    batch: list[NewEvent] = []
    size = 0
    for each in events:
        if batch and (len(batch) == APPEND_EVENTS_MAX or size + len(each.data) > APPEND_BYTES_MAX):
            after = (await log.append(stream, batch, expected_seq=after)).seq
            batch, size = [], 0
        batch.append(each)
        size += len(each.data)
    return (await log.append(stream, batch, expected_seq=after)).seq


async def append_run(log: Log, stream: str, lengths: Sequence[int], *, over: bool = True) -> int:
    """Append a header, step events of ``lengths`` and, if the run is ``over``, its seal."""
    events = [NewEvent("run_start", b'{"header":0}')]
    events += [event(number, length) for number, length in enumerate(lengths, 1)]
    if over:
        events.append(NewEvent(SEAL, b'{"seal":1}'))
    return await append(log, stream, events)


async def rows(log: Log, stream: str) -> list[Recorded]:
    found: list[Recorded] = []
    while page := await log.read(stream, after=len(found) - 1, limit=1_000):
        found += page
    return found


def opened(path: Path, log: Log, **options: Any) -> Segments:
    return Segments.open(path.with_name(f"{path.name}.segments"), log, seal_type=SEAL, **options)


@asynccontextmanager
async def running(path: Path, log: Log, **options: Any) -> AsyncIterator[Segments]:
    """Run the segments of the log at ``path``."""
    segments = opened(path, log, **options)
    task = asyncio.create_task(segments.run())
    try:
        yield segments
    finally:
        task.cancel()
        await asyncio.wait([task])
        await segments.close()
        if not task.cancelled():
            task.result()


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.005)


async def sealed(segments: Segments, stream: str, upto: int) -> None:
    """Return once ``stream`` is sealed up to ``upto`` at least."""
    shelf = segments._shelf
    await until(lambda: shelf.ready and shelf.end(stream) >= upto)


async def all_of(segments: Segments, stream: str) -> list[Segment]:
    """Return the segments of ``stream`` from its first event on."""
    found: list[Segment] = []
    while (segment := await segments.after(stream, found[-1].last_seq if found else 0)) is not None:
        found.append(segment)
    return found
