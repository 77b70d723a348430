"""A thousand runs at once, each with one watcher, and all of them slow: what an ordinary day looks like."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from tests.bench.client.crowd import Crowd, Heard, crowd
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import server, settled
from tests.bench.sides import Fed, many_of_ours

PER_S = 10  # events of each run


class Day(Struct, frozen=True):
    """What the watchers heard, and the cores that the service used."""

    heard: Heard
    cores: float


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield p99 and CPU."""
    runs = scale.of(1_000, 30)
    limits = {"TAILRACE_MAX_RUNS": 2 * runs, "TAILRACE_MAX_PARALLEL_STEPS": 2 * runs}
    with (
        server(directory, **limits) as running,
        crowd() as watching,
        many_of_ours(running, watching, runs) as side,
    ):
        watching.connect(side.place, each=1)
        settled(running)
        watching.produce(PER_S // 2, per_s=PER_S, outputs=runs)
        measure = partial(_measure, watching, side, scale.of(3 * PER_S, 3), runs)
        found = interleaved(scale, {"ours": measure})["ours"]
    job = f"{runs:,} runs × 1 watcher × {PER_S} events/s"
    p99s = [day.heard.p99_ms for day in found]
    yield Row(
        f"{job}, p99", "ms", middle(p99s), target=Target("figure", "most", 50),
        notes=(
            f"p50 {middle([day.heard.p50_ms for day in found]):.1f} ms; {spread(p99s)}",
            f"{max(day.heard.missing for day in found)} events missing",
        ),
    )  # fmt: skip
    yield Row(
        f"{job}, CPU", "cores", middle([day.cores for day in found]), target=Target("figure", "most", 1)
    )


def _measure(watching: Crowd, side: Fed, events: int, runs: int) -> Day:
    used = side.cpu_s()
    heard = watching.produce(events, per_s=PER_S, outputs=runs)
    return Day(heard, (side.cpu_s() - used) / heard.seconds)
