"""The log's disk fails: operation k of every k, once, for a while and for good, with EIO and ENOSPC.

What was acknowledged is stored, what was not says so, reading goes on, and once the fault is gone so does
work, without a restart. ``python -m tests.faults.sweep --cases 5000``.
"""

import asyncio
import random
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from msgspec import Struct

from service.errors import LogError, LogUnavailable, WrongExpectedSeq
from service.log.sqlite import SqliteLog
from tests.faults.appender import event_of
from tests.faults.failing_vfs import ERRORS, FailingVfs, failing_vfs
from tests.faults.power import DB, Told, fault_in
from tests.faults.program import program
from tests.log.contract import read_stream

STREAMS = 2
ROUNDS = 7
BATCHES = (1, 2, 25)
WAL_BYTES_MAX = 120_000  # so that there is a checkpoint among them
LASTING = (1, 2, 3, 10**9)
TRIES_MAX = 5  # until work goes on after the fault: one for what failed with it, one for an unknown answer


class Case(Struct, frozen=True):
    """One fault: which operation, for how long, and in whose work."""

    seed: int
    k: int
    lasting: int  # so many operations
    error: str


class Broken(AssertionError):
    """A promise that did not hold."""


class Work:
    """Appends round by round and reads in between; ``told`` is what it was told."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.told = Told()
        self.outcomes: Counter[str] = Counter()

    async def rounds(self, log: SqliteLog) -> None:
        for _ in range(ROUNDS):
            await asyncio.gather(*(self.append(log, f"run/{n}") for n in range(STREAMS)))
            await self.read(log)

    async def append(self, log: SqliteLog, stream: str) -> bool:
        told = self.told
        last = told.last.setdefault(stream, -1)
        told.unknown.setdefault(stream, set())
        batch = [event_of(stream, last + n) for n in range(1, self.chance.choice(BATCHES) + 1)]
        told.say(stream, "appends", last + len(batch))
        try:
            appended = await log.append(stream, batch, expected_seq=last)
        except LogUnavailable as error:
            said = "unknown" if error.stored is None else "not stored"
            told.say(stream, said, last)
        except WrongExpectedSeq as wrong:
            if wrong.actual not in told.unknown[stream]:
                raise Broken(f"{stream} is at {wrong.actual}, which nobody was told") from wrong
            said = "stored before"
            told.say(stream, "stored", wrong.actual)
        else:
            said = "stored"
            told.say(stream, "stored", appended.seq)
        self.outcomes[said] += 1
        return said == "stored"

    async def read(self, log: SqliteLog) -> None:
        """What has been acknowledged can be read, whatever the disk refuses to take."""
        for stream, last in self.told.last.items():
            after = self.chance.randint(-1, max(last, 0))
            found = [event.data for event in await read_stream(log, stream, after=after)]
            if len(found) < last - after:
                raise Broken(f"{stream}: {last} was acknowledged, and cannot be read behind {after}")
            if found != [event_of(stream, after + n).data for n in range(1, len(found) + 1)]:
                raise Broken(f"{stream}: something else is read behind {after}")


async def run_case(case: Case, directory: Path, failing: FailingVfs) -> Counter[str]:
    """Run one case and return what appends were told. Raises Broken, LogError."""
    path = directory / DB
    work = Work(case.seed)
    if case.seed % 2:  # the others begin with an empty directory
        await SqliteLog.open(path).close()
    failing.fail(case.k, lasting=case.lasting, error=case.error, seed=case.seed)
    try:
        log = SqliteLog.open(path)
    except LogUnavailable:
        failing.heal()
        log = SqliteLog.open(path)
    try:
        await work.rounds(log)
        failing.heal()
        for stream in work.told.last:
            for _ in range(TRIES_MAX):
                if await work.append(log, stream):
                    break
            else:
                raise Broken(f"{stream}: the fault is gone, and nothing can be appended: {log.unavailable}")
        if log.unavailable is not None:
            raise Broken(f"it works, and says {log.unavailable}")
        await work.read(log)
        killed = directory / "killed"
        killed.mkdir()
        for entry in directory.glob(f"{DB}*"):
            shutil.copy(entry, killed)
    finally:
        failing.heal()
        await log.close()
    for left in (killed / DB, path):
        reopened = SqliteLog.open(left)
        try:
            if fault := await fault_in(reopened, work.told):
                raise Broken(f"{left.parent.name}: {fault}")
        finally:
            await reopened.close()
    return work.outcomes


def operations_of(seed: int, failing: FailingVfs, scratch: Path) -> int:
    """Return how many operations a workload takes when none fails."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        asyncio.run(run_case(Case(seed, 10**9, lasting=1, error="EIO"), Path(directory), failing))
    return failing.before_healing


def cases(seed: int, operations: int) -> Iterator[Case]:
    """Yield every fault of one workload, in a seeded order."""
    found = [
        Case(seed, k, lasting=lasting, error=error)
        for k in range(1, operations + 1)
        for lasting in LASTING
        for error in ERRORS
    ]
    random.Random(seed).shuffle(found)
    yield from found


def sweep(scratch: Path, *, seed: int, count: int) -> tuple[list[str], dict[str, int]] | None:
    """Run ``count`` cases and return the faults found, and figures; None if SQLite's disk is out of reach."""
    faults: list[str] = []
    outcomes: Counter[str] = Counter()
    felt = done = workloads = 0
    patches = (
        patch("service.log.writer.WAL_BYTES_MAX", WAL_BYTES_MAX),
        patch("service.log.store.UNPLACED_MAX", 20),
        patch("service.log.commit.RETRY_INTERVAL_S", 0.0),
    )
    with failing_vfs() as failing, patches[0], patches[1], patches[2], asyncio.Runner() as runner:
        if failing is None:
            return None
        while done < count:
            for case in cases(seed + workloads, operations_of(seed + workloads, failing, scratch)):
                with tempfile.TemporaryDirectory(dir=scratch) as directory:
                    try:
                        outcomes += runner.run(run_case(case, Path(directory), failing))
                    except (Broken, LogError) as error:
                        faults.append(f"{case}, failed {failing.failed[:3]}: {error}")
                felt += bool(failing.failed)
                done += 1
                if done == count:
                    break
            workloads += 1
    figures = {"cases": done, "felt": felt, "workloads": workloads, "faults": len(faults)}
    return faults, figures | {name.replace(" ", "_"): number for name, number in sorted(outcomes.items())}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "cases", 5_000,
        lambda scratch, given: sweep(scratch, seed=given.seed, count=given.cases),
        skipped="this Python's SQLite is not a library of its own", in_memory=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
