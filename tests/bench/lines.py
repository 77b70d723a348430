"""A command that prints many lines at once, each recorded as an event of its own."""

import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tests.bench.client import watch
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import RUNS, ended, printing, server


class Recording(Struct, frozen=True):
    """Lines a second by the step's own duration, and from execute to a projected end."""

    by_step: float
    by_wall: float


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield the lines recorded a second."""
    lines = scale.of(200_000, 2_000)
    with server(directory) as running:
        running.create("print", printing(lines))

        def record() -> Recording:
            began = time.perf_counter()
            run_id = running.execute("print")
            run = ended(running, run_id)
            took = time.perf_counter() - began
            # The last event is the seal: header, step_start, "Starting step", the lines, step_complete.
            (watched,) = watch(running.port, f"{RUNS}/{run_id}/stream")
            assert watched.messages >= lines + 2, watched
            assert watched.code == 1000, watched
            (step,) = running.get(f"{RUNS}/{run_id}/steps").json["data"]
            assert run["lastSeq"] > lines, run
            return Recording(lines / step["duration"] * 1000, lines / took)

        found = interleaved(scale, {"ours": record})["ours"]
    by_step = [round_.by_step for round_ in found]
    yield Row(
        "lines of a command", "/s", middle(by_step), target=Target("figure", "least", 50_000),
        notes=(
            f"{lines:,} lines, by the step's duration; {spread(by_step)}",
            f"from execute until the projections show the end: {middle([r.by_wall for r in found]):,.0f} /s",
        ),
    )  # fmt: skip
