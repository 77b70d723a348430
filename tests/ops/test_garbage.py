"""Full collections are made when memory asks for them, and then in a quiet moment if there is one."""

import asyncio
import gc
import subprocess
import sys
import weakref

from service.ops.garbage import GROWN_BYTES_BUSY, GROWN_BYTES_QUIET, NEVER, QUIET_CORES, WORK_S, Collector


class Machine:
    """A process whose memory and CPU a test moves; a second passes with each check."""

    def __init__(self, resident_bytes: int) -> None:
        self.resident_bytes = resident_bytes
        self.used_s = self.now = 0.0
        self.collections = self.trims = 0
        self.collector = Collector(
            resident_bytes=lambda: self.resident_bytes,
            cpu_s=lambda: self.used_s,
            now=lambda: self.now,
            collect=self.collect,
            trim=self.trim,
        )

    def collect(self) -> None:
        self.collections += 1

    def trim(self) -> None:
        self.trims += 1

    def second(self, *, grown: int, cores: float) -> int:
        """Let a second pass and return how often it was collected in it."""
        before = self.collections
        self.resident_bytes += grown
        self.used_s += cores
        self.now += 1.0
        self.collector.check()
        return self.collections - before


def test_who_does_not_grow_is_never_stopped_while_it_is_busy():
    machine = Machine(100 * 1024 * 1024)
    assert sum(machine.second(grown=0, cores=cores) for cores in (2 * QUIET_CORES, 0.5, 1.0) * 100) == 0


def test_after_work_a_quiet_second_is_used_although_nothing_grew():
    machine = Machine(100 * 1024 * 1024)
    assert machine.second(grown=0, cores=WORK_S - 1) == 0
    assert machine.second(grown=0, cores=0) == 0
    assert machine.second(grown=0, cores=1) == 0
    assert [machine.second(grown=0, cores=0) for _ in range(100)] == [1] + [0] * 99


def test_memory_is_given_back_when_nobody_waits():
    machine = Machine(100 * 1024 * 1024)
    machine.second(grown=GROWN_BYTES_BUSY, cores=1)
    assert (machine.collections, machine.trims) == (1, 0)
    machine.second(grown=GROWN_BYTES_QUIET, cores=0)
    assert (machine.collections, machine.trims) == (2, 1)


def test_a_little_more_waits_for_a_quiet_second():
    machine = Machine(100 * 1024 * 1024)
    assert machine.second(grown=GROWN_BYTES_QUIET, cores=2 * QUIET_CORES) == 0
    assert machine.second(grown=0, cores=2 * QUIET_CORES) == 0
    assert machine.second(grown=0, cores=QUIET_CORES / 2) == 1
    assert machine.second(grown=GROWN_BYTES_QUIET - 1, cores=0) == 0


def test_much_more_does_not_wait():
    machine = Machine(100 * 1024 * 1024)
    assert machine.second(grown=GROWN_BYTES_BUSY - 1, cores=1) == 0
    assert machine.second(grown=1, cores=1) == 1
    large = Machine(10 * GROWN_BYTES_BUSY)
    assert large.second(grown=GROWN_BYTES_BUSY, cores=1) == 0, "for a large process it is not much"
    assert large.second(grown=2 * GROWN_BYTES_BUSY, cores=1) == 1


async def test_while_it_runs_python_collects_the_young_alone_and_it_collects_the_rest():
    class Node:
        def __init__(self) -> None:
            self.itself = self

    before = gc.get_threshold()
    resident = 0
    collector = Collector(resident_bytes=lambda: resident)
    running = asyncio.create_task(collector.run())
    await asyncio.sleep(0)
    assert gc.get_threshold()[2] == NEVER
    node = weakref.ref(Node())
    resident = GROWN_BYTES_BUSY
    collector.check()
    assert node() is None
    running.cancel()
    await asyncio.wait([running])
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


CHURN = """
import resource, sys
from service.ops.garbage import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def churn():
    held = [b"x" * 220_000 for _ in range(12)]
for _ in range(5):
    churn()
before = faults()
for _ in range(100):
    churn()
print(faults() - before)
"""


def test_freed_memory_is_kept_for_what_comes_next():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", CHURN, how]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)

    assert faults("kept") * 20 < faults("as it is")
