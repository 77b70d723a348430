"""What sealing and reading segments cost: ``python -m tests.segments.measure [events]``."""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from service.log import Log, NewEvent
from service.log.sqlite import SqliteLog
from service.segments import Segments
from tests.segments.house import append, append_run, opened, running, sealed

EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
LENGTH = 204


async def lateness(stop: asyncio.Event) -> float:
    """Return how long the loop kept others waiting at most."""
    worst = 0.0
    while not stop.is_set():
        at = time.perf_counter()
        await asyncio.sleep(0.001)
        worst = max(worst, time.perf_counter() - at - 0.001)
    return worst


async def seal(path: Path, log: Log) -> None:
    stop = asyncio.Event()
    waiting = asyncio.create_task(lateness(stop))
    began, used = time.perf_counter(), time.process_time()
    async with running(path, log) as segments:
        await sealed(segments, "run/a", EVENTS // 1024 * 1024)
        took, used = time.perf_counter() - began, time.process_time() - used
    stop.set()
    size = path.with_name(f"{path.name}.segments").stat().st_size
    print(
        f"seal {EVENTS:,} events: {took / EVENTS * 1e6:.2f} us each ({used / EVENTS * 1e6:.2f} of CPU); the loop waited at"
        f" most {await waiting * 1e3:.1f} ms; {size / EVENTS:.0f} bytes each"
    )


async def replay(segments: Segments, stream: str = "run/a") -> int:
    after = framed = 0
    while (segment := await segments.after(stream, after)) is not None:
        framed += len(segment.text_frames(after))
        after = segment.last_seq
        if framed > 1024 * 1024:
            framed = 0
            await asyncio.sleep(0)
    return after


async def read(path: Path, log: Log) -> None:
    cold, warm, none, first = [], [], [], []
    for _ in range(7):
        segments = opened(path, log)
        part = asyncio.create_task(segments.run())
        while not segments._shelf.ready:
            await asyncio.sleep(0.001)
        at = time.perf_counter()
        await segments.after("run/other", 0)
        first.append((time.perf_counter() - at) * 1e6)
        for figures in (cold, warm):
            at = time.perf_counter()
            events = await replay(segments)
            figures.append(events / (time.perf_counter() - at) / 1e6)
        at = time.perf_counter()
        for _ in range(1_000):
            await segments.after("run/other", 0)
        none.append((time.perf_counter() - at) * 1e3)
        part.cancel()
        await asyncio.wait([part])
        await segments.close()
    print(f"replay from the file: {statistics.median(cold):.1f} M events/s (best {max(cold):.1f})")
    print(f"replay from the cache: {statistics.median(warm):.1f} M events/s (best {max(warm):.1f})")
    print(
        f"no segment: {statistics.median(none):.2f} us, asked for the first time {statistics.median(first):.0f} us"
    )


async def appends(log: Log, stop: asyncio.Event, share: float, took: list[float]) -> float:
    """Append to 20 runs at once, 20 events each time, at ``share`` of what is possible; return events/s."""
    count = 0
    began = time.perf_counter()

    async def one(number: int) -> None:
        nonlocal count
        after = -1
        batch = [NewEvent("step_log", b"x" * LENGTH)] * 20
        while not stop.is_set():
            at = time.perf_counter()
            after = (await log.append(f"run/load-{began}-{number}", batch, expected_seq=after)).seq
            spent = time.perf_counter() - at
            took.append(spent)
            count += len(batch)
            if share < 1:
                await asyncio.sleep(spent * (1 - share) / share)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(number))
    return count / (time.perf_counter() - began)


async def beside_appends(path: Path, log: Log, share: float, seconds: float = 2.0) -> None:
    figures: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for turn in range(10):
        sealing = turn % 2 == 1
        path.with_name(f"{path.name}.segments").unlink(missing_ok=True)
        stop, took = asyncio.Event(), []
        asyncio.get_running_loop().call_later(seconds, stop.set)
        end = 0
        if sealing:
            async with running(path, log) as segments:
                rate = await appends(log, stop, share, took)
                end = segments._shelf.end("run/a")
        else:
            rate = await appends(log, stop, share, took)
        cuts = statistics.quantiles(took, n=100)
        figures[sealing].append((rate, cuts[49], cuts[98], end / seconds))
    alone, beside = (
        [statistics.median(values) for values in zip(*figures[sealing], strict=True)]
        for sealing in (False, True)
    )
    print(
        f"appends at {share:.0%}: alone {alone[0]:,.0f}/s p50 {alone[1] * 1e3:.2f} p99 {alone[2] * 1e3:.2f} ms; beside"
        f" sealing of {beside[3]:,.0f}/s {beside[0] / alone[0]:.2f}x, p50 {beside[1] / alone[1]:.2f}x,"
        f" p99 {beside[2] / alone[2]:.2f}x"
    )


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tailrace.db"
        log = SqliteLog.open(path)
        await append_run(log, "run/a", [LENGTH] * EVENTS)
        await append(log, "run/filler", [NewEvent("step_log", b"x" * 1_000)] * 20_000)  # a tail of others
        await seal(path, log)
        await read(path, log)
        await append_run(log, "run/b", [LENGTH] * EVENTS)
        await beside_appends(path, log, 1.0)
        await beside_appends(path, log, 0.5)
        await log.close()


if __name__ == "__main__":
    uvloop.run(main())
