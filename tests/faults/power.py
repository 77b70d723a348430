"""Power loss: what the log's writer does to its files is recorded, and the disk loses power at every moment.

Each state that may be left is opened as the service would, and must hold whatever was acknowledged by then.
``python -m tests.faults.power --states 50000``; ``--synchronous NORMAL`` must find losses.
"""

import asyncio
import json
import random
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from service.errors import LogError
from service.log import Recorded, chain_next, chain_seed
from service.log.sqlite import SqliteLog
from tests.faults.appender import event_of
from tests.faults.disk import Disk
from tests.faults.program import program
from tests.faults.syscalls import Operation, Write, operations, python, run, traced

ROOT = Path(__file__).parent.parent.parent
DB, ACKS = "tailrace.db", "acks"
LIVES = 5  # of the process, in turn ended in order and killed
APPENDS = 60  # of one life
SOON = 250  # operations
STATES_PER_HISTORY = 500  # then another one is recorded
KILLED = {-9, 137}
# Flushes that the kernel fails, of each thread, in most lives of every second history.
FAILED_FLUSHES = tuple(f"fdatasync:error=EIO:when={{}}{again}" for again in ("", "+9", "+"))


def record(directory: Path, *, seed: int, synchronous: str, failing: bool) -> list[Operation]:
    """Run the writer for some lives and return all that it did."""
    chance = random.Random(seed)
    found: list[Operation] = []
    for life in range(LIVES):
        end = chance.choice(("kill", "close"))
        trace = directory.parent / f"{directory.name}-{life}.trace"
        words = ["-m", "tests.faults.appender", str(directory / DB), str(directory / ACKS)]
        words += ["--seed", str(seed * LIVES + life), "--appends", str(APPENDS)]
        words += ["--synchronous", synchronous, "--end", end]
        inject = None
        if failing and chance.random() < 0.7:
            inject = chance.choice(FAILED_FLUSHES).format(chance.randint(2, 14))
        command = traced(python(*words), trace, inject=inject)
        run(command, codes={*KILLED, 0, 3}, cwd=ROOT)
        found += operations(trace, directory)
        trace.unlink()
    return found


class Told:
    """What the writer was told: where each stream may end. An append is there wholly or not at all."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.unknown: dict[str, set[int]] = {}
        self.under_way: dict[str, int] = {}

    def say(self, stream: str, said: str, seq: int) -> None:
        if said == "appends":
            self.under_way[stream] = seq
            return
        append = self.under_way.pop(stream, None)
        if said == "stored":
            self.last[stream] = seq
            self.unknown[stream] = set()
        elif said == "unknown" and append is not None:
            self.unknown[stream].add(append)

    def ends(self, stream: str) -> set[int]:
        """Return the seqs that may be its last."""
        found = {self.last.get(stream, -1), *self.unknown.get(stream, ())}
        return found | {self.under_way[stream]} if stream in self.under_way else found


def states(
    history: list[Operation], directory: Path, *, seed: int, count: int
) -> Iterator[tuple[int, dict[str, bytes], Told]]:
    """Yield ``count`` times: after which operation power was lost, what was left, what had been acknowledged."""
    chance = random.Random(seed)
    # A flush that fails leaves most to go wrong: half of the moments come soon after one, if there is any.
    failed = [number for number, each in enumerate(history) if getattr(each, "failed", False)]
    soon = [
        min(chance.choice(failed) + chance.randint(0, SOON), len(history))
        for _ in range(count // 2)
        if failed
    ]
    moments = sorted(soon + [chance.randint(0, len(history)) for _ in range(count - len(soon))])
    disk, told, done = Disk(directory), Told(), 0
    for moment in moments:
        for operation in history[done:moment]:
            if operation.path.name != ACKS:
                disk.do(operation)
            elif isinstance(operation, Write):
                told.say(*json.loads(operation.data))
        done = moment
        left = disk.after_power_loss(chance)
        left.pop(f"{DB}-shm", None)  # never flushed, never trusted: made anew by who opens first
        if chance.random() < 0.2:
            left[f"{DB}-shm"] = chance.randbytes(32_768)
        yield moment, left, told


async def fault_of(directory: Path, left: dict[str, bytes], told: Told) -> str | None:
    """Open what is left and return what is wrong with it."""
    for entry in directory.iterdir():
        entry.unlink()
    for name, content in left.items():
        (directory / name).write_bytes(content)
    try:
        log = SqliteLog.open(directory / DB)
    except LogError as error:
        return f"it does not open: {error}"
    try:
        return await fault_in(log, told)
    except LogError as error:
        return f"it cannot be read: {error!r}"
    finally:
        await log.close()


async def fault_in(log: SqliteLog, told: Told) -> str | None:
    """Return what is wrong with all that a log holds, and with what can be appended to it."""
    streams: dict[str, list[Recorded]] = {}
    position = 0
    while page := await log.read_all(after=position, limit=1_000):
        for event in page:
            streams.setdefault(event.stream, []).append(event)
        position = page[-1].position
    for stream in {*streams, *told.last}:
        last = len(streams.get(stream, ())) - 1
        if last < told.last.get(stream, -1):
            return f"{stream}: {told.last[stream]} was acknowledged, it ends at {last}"
        if last not in told.ends(stream):
            return f"{stream}: it ends at {last}, it was said to end at {told.ends(stream)}"
    for stream, events in streams.items():
        chain = chain_seed(stream)
        for seq, event in enumerate(events):
            if event.seq != seq:
                return f"{stream}: {event.seq} stands where {seq} belongs"
            if (event.type, event.data) != ((new := event_of(stream, seq)).type, new.data):
                return f"{stream}: {seq} is not what was appended"
            chain = chain_next(chain, event.data)
        if events[-1].chain != chain:
            return f"{stream}: the chain's head is wrong"
        middle = len(events) // 2
        if list(await log.read(stream, after=middle - 1, limit=30)) != events[middle : middle + 30]:
            return f"{stream}: read from its middle on it is another"
        added = await log.append(stream, [event_of(stream, len(events))], expected_seq=len(events) - 1)
        if added.chain != chain_next(chain, event_of(stream, len(events)).data):
            return f"{stream}: what comes next does not continue the chain"
    return None


def power_losses(
    scratch: Path, *, seed: int, count: int, synchronous: str = "FULL"
) -> tuple[list[str], dict[str, int]]:
    """Check ``count`` states and return the faults found, and figures."""
    faults: list[str] = []
    figures = {"states": 0, "histories": 0, "operations": 0, "failed_flushes": 0}
    with asyncio.Runner() as runner:
        while figures["states"] < count:
            number = seed + figures["histories"]
            writing, opening = scratch / f"w{number}", scratch / "opened"
            writing.mkdir()
            opening.mkdir(exist_ok=True)
            history = record(writing, seed=number, synchronous=synchronous, failing=number % 2 == 0)
            share = min(STATES_PER_HISTORY, count - figures["states"])
            for moment, left, told in states(history, writing, seed=number, count=share):
                fault = runner.run(fault_of(opening, left, told))
                if fault is not None:
                    faults.append(f"history {number}, operation {moment}: {fault}")
            figures["states"] += share
            figures["histories"] += 1
            figures["operations"] += len(history)
            figures["failed_flushes"] += sum(getattr(each, "failed", False) for each in history)
            for entry in writing.iterdir():
                entry.unlink()
            writing.rmdir()
    return faults, figures | {"faults": len(faults)}


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--synchronous", default="FULL", choices=("FULL", "NORMAL"))
    return program(
        parser, "states", 50_000,
        lambda scratch, given: power_losses(scratch, seed=given.seed, count=given.states, synchronous=given.synchronous),
        in_memory=True,  # the disk is ours, the files need none
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
