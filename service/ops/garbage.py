"""When Python looks for objects that only refer to each other: seldom, and best while nobody waits.

A full collection stops everything for as long as it takes to visit all that lives, 0.2 s for a thousand runs
and their watchers. Python makes one whenever a quarter of what lives is new, and tasks and futures that soon
pass count as new: several a second. What they are for is memory, so here it is memory that asks for them.
"""

import asyncio
import ctypes
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

YOUNG_OBJECTS = 2_000  # more of them than have gone: the youngest generation is collected
YOUNG_COLLECTIONS = 10  # then the next one, still below ten milliseconds
NEVER = 1_000_000_000
CHECK_INTERVAL_S = 1.0
GROWN_BYTES_QUIET = 8 * 1024 * 1024  # since the last full collection: then a quiet second is used for one
GROWN_BYTES_BUSY = 64 * 1024 * 1024  # and by a quarter: then it does not wait for a quiet second
QUIET_CORES = 0.05
# What has gone leaves cycles behind without growing: so after some work a quiet second is used as well.
WORK_S = 10.0

# Freed memory that is kept for what comes next: to get it again from the machine, page by page, takes longer
# than to read a segment into it. A quiet second gives it back.
FREE_BYTES_KEPT = 8 * 1024 * 1024
LARGE_BYTES = 1024 * 1024  # from here on each block comes from the machine, and goes back to it at once
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Collector:
    """Makes the full collections while ``run`` is running; ``now`` and ``cpu_s`` are clocks in seconds."""

    def __init__(
        self,
        *,
        resident_bytes: Callable[[], int] | None = None,
        cpu_s: Callable[[], float] = time.process_time,
        now: Callable[[], float] = time.monotonic,
        collect: Callable[[], object] = gc.collect,
        trim: Callable[[], object] | None = None,
    ) -> None:
        self._resident_bytes = resident_bytes or _resident_bytes
        self._cpu_s = cpu_s
        self._now = now
        self._collect = collect
        self._trim = trim or _trim
        self._bytes = self._resident_bytes()  # after the last full collection
        self._used_s, self._at = cpu_s(), now()
        self._collected_s = self._used_s

    async def run(self) -> None:
        """Take over from Python's own rule until cancelled. What lives by now is never looked at again."""
        before = gc.get_threshold()
        self._full()
        gc.freeze()  # modules and classes, a third of all objects
        gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, NEVER)
        try:
            while True:
                await asyncio.sleep(CHECK_INTERVAL_S)
                with suppress(OSError):  # no file descriptor is left to look with: next time, then
                    self.check()
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()

    def check(self) -> None:
        """Collect if there may be enough to win, and now is a good time or it cannot wait for one."""
        used_s, at = self._cpu_s(), self._now()
        quiet = used_s - self._used_s < QUIET_CORES * (at - self._at)
        self._used_s, self._at = used_s, at
        grown = self._resident_bytes() - self._bytes
        worked = used_s - self._collected_s >= WORK_S
        if quiet and (worked or grown >= GROWN_BYTES_QUIET):
            self._full(trimming=True)
        elif grown >= max(GROWN_BYTES_BUSY, self._bytes // 4):
            self._full()

    def _full(self, *, trimming: bool = False) -> None:
        self._collect()
        if trimming:  # else it is about to be used again
            self._trim()
        self._bytes = self._resident_bytes()
        self._collected_s = self._cpu_s()


def keep_freed_memory() -> None:
    """Keep FREE_BYTES_KEPT of what is freed for what comes next, where glibc has a say in that."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_TRIM_THRESHOLD, FREE_BYTES_KEPT)
        set_option(_MMAP_THRESHOLD, LARGE_BYTES)


def _trim() -> None:
    """Give freed memory back to the machine, which glibc alone does only from the end of its heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
