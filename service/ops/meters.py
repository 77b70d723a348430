"""What the rooms tell of themselves, counted: plain numbers, which nobody turns into text before a scrape.

The rooms do not know these classes, only the calls (``Meter`` in log, engine and api).
"""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable

from service.ops.histogram import FLUSHES_S, GROUPS, REQUESTS_S, STEPS_S, Histogram

LOOP_INTERVAL_S = 0.25  # between two looks at how late the loop is
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WS"})


class LogMeter:
    """Counts what the log does."""

    def __init__(self) -> None:
        self.append_s = Histogram(FLUSHES_S)
        self.flush_s = Histogram(FLUSHES_S)
        self.group_appends = Histogram(GROUPS)
        self.events = 0
        self.bytes = 0
        self.refused_by: Counter[str] = Counter()

    def committed(self, *, seconds: float, appends: int, events: int, size: int) -> None:
        """Count a flush and what it stored."""
        self.flush_s.observe(seconds)
        self.group_appends.observe(appends)
        self.events += events
        self.bytes += size

    def answered(self, *, seconds: float, appends: int) -> None:
        """Count answers."""
        self.append_s.observe(seconds, appends)

    def refused(self, error: Exception) -> None:
        """Count an answer that was an error: log_unavailable, wrong_expected_seq, damaged."""
        self.refused_by[re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()] += 1


class EngineMeter:
    """Counts what the engine does, by type of step: as many as the registry has."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.repeated: Counter[tuple[str, str]] = Counter()
        self.step_s: defaultdict[tuple[str, str], Histogram] = defaultdict(lambda: Histogram(STEPS_S))
        self.run_s: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(STEPS_S))

    def attempt_began(self, kind: str) -> None:
        """Count one more that runs."""
        self.running[kind] += 1

    def attempt_ended(self, kind: str) -> None:
        """Count one less."""
        self.running[kind] -= 1

    def step_repeated(self, kind: str, outcome: str) -> None:
        """Count an attempt that will be followed by another."""
        self.repeated[kind, outcome] += 1

    def step_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Count a step by its end."""
        self.step_s[kind, outcome].observe(seconds)

    def run_ended(self, outcome: str, seconds: float) -> None:
        """Count a run by its end."""
        self.run_s[outcome].observe(seconds)


class RequestMeter:
    """Counts the answers to requests by what is ours: the route's template, never its path."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self.answer_s: defaultdict[tuple[str, str], Histogram] = defaultdict(lambda: Histogram(REQUESTS_S))

    def answered(self, *, route: str, method: str, status: int | None, seconds: float | None) -> None:
        """Count an answer; ``status`` None: the client left before. ``seconds`` None: it was a stream."""
        method = method if method in METHODS else "other"
        self.answers[route, method, "none" if status is None else str(status)] += 1
        if seconds is not None:
            self.answer_s[route, method].observe(seconds)


class LoopMeter:
    """Looks four times a second how late the event loop is: everything else waits as long."""

    def __init__(self) -> None:
        self.late_s = Histogram(REQUESTS_S)

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOP_INTERVAL_S
            await asyncio.sleep(LOOP_INTERVAL_S)
            self.late_s.observe(max(0.0, loop.time() - due))


class GarbageMeter:
    """Times the full garbage collections, during which everything stands still."""

    def __init__(self) -> None:
        self.full_s = Histogram(REQUESTS_S)

    def timed(self, collect: Callable[[], object]) -> Callable[[], None]:
        """Return ``collect`` with its time taken."""

        def collected() -> None:
            began = time.perf_counter()
            collect()
            self.full_s.observe(time.perf_counter() - began)

        return collected


class Meters:
    """All of them, made before the rooms that tell them."""

    def __init__(self) -> None:
        self.log = LogMeter()
        self.engine = EngineMeter()
        self.requests = RequestMeter()
        self.loop = LoopMeter()
        self.garbage = GarbageMeter()
