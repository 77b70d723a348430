"""The load itself: who comes, who stays, who leaves, and a sample of every few seconds of it."""

import time
from pathlib import Path

from msgspec import Struct

from tests.bench.client.crowd import Crowd, Place, crowd
from tests.bench.client.slow import Slowly, slow_readers
from tests.bench.idle import SETTLE_S, SPARE_FILES, files_max
from tests.bench.rounds import tell
from tests.bench.running import RUNS, server, settled
from tests.bench.sides import many_of_ours
from tests.load.samples import KIB, MIB, Gauge, Sample

PER_S = 10  # lines of each busy run
SLOW_BYTES_PER_S = 1024
WINDOWS_MAX = 900  # a line has three digits for the window that it belongs to
GRACE_S = 20.0
GONE_TIMEOUT_S = 60.0
QUIET_S = 3.0  # what is gone is collected in a quiet second
QUIET_CORES = 0.02
UNLOADED, IDLE, SLOW, ALL, AGAIN = "unloaded", "+ idle", "+ slow", "all of it", "unloaded again"


class Size(Struct, frozen=True):
    """How many of each there are; ``windows`` of every phase but ``all of it``, which takes ``minutes``."""

    idle: int
    slow: int
    runs: int
    healthy_each: int  # on every busy run
    minutes: float
    window_s: int
    windows: int
    history: int  # lines of each run before anybody comes: more than is ever on its way to a slow reader

    @property
    def healthy(self) -> int:
        return self.runs * self.healthy_each

    @property
    def streams(self) -> int:
        return self.idle + self.slow + self.healthy


FULL = Size(10_000, 1_000, 100, 2, minutes=2.0, window_s=5, windows=12, history=3_000)
QUICK = Size(300, 20, 5, 2, minutes=0.1, window_s=1, windows=2, history=3_000)


class Found(Struct, frozen=True):
    """What the load found: the samples, and how everybody was before they left."""

    size: Size
    empty: Sample  # before anything, and once more after everything
    empty_again: Sample
    samples: list[Sample]
    idle_kib_each: float
    idle_left: int  # who is still there at the end of ``all of it``
    healthy_left: int
    slow: Slowly
    slow_bytes_per_s: float  # of each, during ``all of it``

    def phase(self, *names: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.phase in names]


def load(size: Size, directory: Path) -> Found:
    """Put the load on a service of its own and take it away again."""
    assert size.streams + SPARE_FILES <= files_max(), f"{size.streams:,} streams need more files (ulimit -n)"
    limits = {
        "TAILRACE_MAX_WATCHERS": 2 * size.streams,
        "TAILRACE_MAX_WATCHERS_PER_RUN": 2 * size.streams,
        "TAILRACE_MAX_RUNS": 2 * size.runs,
        "TAILRACE_MAX_PARALLEL_STEPS": 2 * size.runs,
        "TAILRACE_DRAIN_TIMEOUT_S": 1,  # nobody waits for the run that sleeps
    }
    with server(directory, **limits) as running:
        gauge = Gauge(running)
        empty = gauge.sample("empty")
        running.create("sleep", {"steps": {"s": {"id": "s", "type": "wait", "config": {"duration": "9h"}}}})
        sleeping = f"{RUNS}/{running.execute('sleep')}/stream"
        with crowd() as healthy, many_of_ours(running, healthy, size.runs) as busy:
            at = busy.place
            healthy.produce(size.history, outputs=size.runs)  # nobody is there to wait for
            settled(running)
            healthy.connect(
                Place(at.address, [f"{path}?after=tail" for path in at.paths]), each=size.healthy_each
            )
            day = _Day(size, gauge, healthy)
            day.windows(UNLOADED, size.windows)
            with crowd() as idle:
                each = _idle(idle, Place(at.address, [sleeping]), size, gauge)
                day.windows(IDLE, size.windows)
                with slow_readers(
                    at.address, at.paths, each=size.slow // size.runs, bytes_per_s=SLOW_BYTES_PER_S
                ) as slow:
                    day.windows(SLOW, size.windows)
                    before, began = slow.look(), time.monotonic()
                    day.windows(ALL, max(round(size.minutes * 60 / size.window_s), 4))
                    after, took_s = slow.look(), time.monotonic() - began
                    idle_left = idle.connect(Place(at.address, []), each=0).watchers
            _until(gauge, size.healthy)
            day.windows(AGAIN, size.windows)
        _until(gauge, 0)
        empty_again = _quiet(gauge)
    return Found(
        size, empty, empty_again, day.samples, each, idle_left, day.healthy_left, after,
        (after.bytes - before.bytes) / took_s / size.slow,
    )  # fmt: skip


class _Day:
    """Window after window in which the busy runs say their lines and the healthy watchers read them."""

    def __init__(self, size: Size, gauge: Gauge, healthy: Crowd) -> None:
        self.samples: list[Sample] = []
        self.healthy_left = 0
        self._size, self._gauge, self._healthy = size, gauge, healthy

    def windows(self, phase: str, count: int) -> None:
        size = self._size
        assert len(self.samples) + count <= WINDOWS_MAX, "take longer windows"
        self._gauge.restart()
        for number in range(count):
            heard = self._healthy.produce(
                PER_S * size.window_s, per_s=PER_S, outputs=size.runs, grace_s=GRACE_S
            )
            self.healthy_left = heard.watchers
            self.samples.append(sample := self._gauge.sample(phase, heard))
            if number % 12 == 0 or number == count - 1:
                tell(
                    f"{sample.at_s:6.0f} s  {phase}: {sample.streams:,} streams, "
                    f"RSS {sample.rss_bytes / MIB:.0f} MiB, p99 {sample.p99_ms:.1f} ms, "
                    f"{sample.cores:.2f} cores, others {sample.other_cores:.2f}"
                )


def _idle(idle: Crowd, place: Place, size: Size, gauge: Gauge) -> float:
    """Let them come and return what each costs, in KiB."""
    first = size.idle // 10  # whatever is only needed once is there after these
    idle.connect(place, each=first)
    time.sleep(SETTLE_S)
    before = gauge.rss_bytes()
    idle.connect(place, each=size.idle - first)
    time.sleep(SETTLE_S)
    return (gauge.rss_bytes() - before) / (size.idle - first) / KIB


def _until(gauge: Gauge, streams: int) -> None:
    """Return once the service says that only so many are open."""
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while (left := gauge.streams()) != streams:
        assert time.monotonic() < deadline, f"{left:,} streams are open, not {streams:,}"
        time.sleep(0.1)


def _quiet(gauge: Gauge) -> Sample:
    """Return what is left once the service has had nothing to do for a while: it seals the runs that are over."""
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while True:
        gauge.restart()
        time.sleep(QUIET_S)
        sample = gauge.sample("empty again")
        if sample.cores < QUIET_CORES or time.monotonic() > deadline:
            return sample
