"""How fast views are made from nothing, and what a read costs: ``python -m tests.projection.measure``."""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from service.log import Log
from service.log.sqlite import SqliteLog
from service.projection import Projections, RunFilter
from tests.projection.histories import (
    append_frames,
    append_run,
    guide_frames,
    log_line,
    long_frames,
    run_id_of,
    start,
)

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
LONG_RUNS, LINES = 2, RUNS * 5
FILLERS = 100


async def fill(log: Log) -> None:
    numbers = iter(range(RUNS))

    async def filler() -> None:
        for number in numbers:
            await append_frames(log, run_id_of(number), guide_frames(), at_ms=1_763_721_045_000 + number)

    async with asyncio.TaskGroup() as group:
        for _ in range(FILLERS):
            group.create_task(filler())
        for number in range(LONG_RUNS):
            group.create_task(append_frames(log, f"long-{number}", long_frames(LINES)))


@asynccontextmanager
async def following(projections: Projections):
    follower = asyncio.create_task(projections.run())
    try:
        yield
    finally:
        follower.cancel()
        await asyncio.wait([follower])
        await projections.close()


async def rebuild(path: Path, events: int) -> None:
    log = SqliteLog.open(path)
    views = path.with_name("views")
    projections = Projections.open(views, log)
    began = time.perf_counter()
    async with following(projections):
        worst = 0.0
        caught_up = asyncio.create_task(projections.caught_up(None))
        while not caught_up.done():  # how long the loop is kept from others
            slept = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - slept - 0.001)
        took = time.perf_counter() - began
        print(
            f"rebuild: {events} events in {took:.2f} s: {events / took:,.0f} events/s; the loop waited at most {worst * 1e3:.1f} ms"
        )
        began = time.perf_counter()
        for status in (None, "success", "running"):
            for workflow in (None, "guide", "long"):
                await projections.runs(RunFilter(status=status, workflow_id=workflow), before=None, limit=100)
        print(f"list of 100 runs: {(time.perf_counter() - began) / 9 * 1e3:.2f} ms")
    await log.close()


async def reads_under_load(path: Path, seconds: float = 4.0) -> None:
    log = SqliteLog.open(path)
    projections = Projections.open(path.with_name("views"), log)
    stop = asyncio.Event()
    appended = 0

    async def writer(number: int) -> None:
        nonlocal appended
        while not stop.is_set():
            await append_frames(log, f"load-{number}-{time.perf_counter_ns()}", guide_frames())
            appended += 11

    async def lines() -> None:
        nonlocal appended
        seq = (await append_run(log, "lines", [start()])).seq
        while not stop.is_set():
            seq = (await append_run(log, "lines", [log_line("step1", "x" * 60)] * 500, after=seq)).seq
            appended += 500
            await asyncio.sleep(0.01)

    async with following(projections), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(writer(number))
        group.create_task(lines())
        took, own = [], []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            at = time.perf_counter()
            await projections.run_detail(run_id_of(random.randrange(RUNS)))
            took.append(time.perf_counter() - at)
            run_id = f"own-{time.perf_counter_ns()}"
            await append_run(log, run_id, [start()])
            at = time.perf_counter()
            assert await projections.run_detail(run_id)
            own.append(time.perf_counter() - at)
            await asyncio.sleep(0.002)
        stop.set()
    rate = appended / seconds
    for name, figures in (("any run", took), ("a run just appended", own)):
        cuts = statistics.quantiles(figures, n=100)
        print(
            f"read of {name} under {rate:,.0f} events/s: p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms ({len(figures)})"
        )
    await log.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tailrace.db"
        log = SqliteLog.open(path)
        began = time.perf_counter()
        await fill(log)
        events = await log.wait(None, after=-1)
        print(f"log: {events} events in {time.perf_counter() - began:.1f} s")
        await log.close()
        await rebuild(path, events)
        await reads_under_load(path)


if __name__ == "__main__":
    asyncio.run(main())
