"""How much a run that prints as fast as it may slows the steps of another run."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, percentile
from tests.bench.running import NOTHING, RUNS, TRUE, chain, ended, printing, server
from tests.server import Server

LINES_PER_S = 50_000
CHAINS = {"no-op": (100, NOTHING), "command true": (20, TRUE)}
AT_MOST_TWICE = Target("ratio", "most", 2.0)


class Beside(Struct, frozen=True):
    """ms a step of each chain, and the lines a second that were recorded meanwhile."""

    step_ms: list[float]
    lines_per_s: float


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield, for each kind of chain, the time of a step alone and beside 50,000 lines a second."""
    with server(directory) as running:
        running.create("flood", printing(scale.of(5 * LINES_PER_S, LINES_PER_S // 2), per_s=LINES_PER_S))
        for name, (steps, step) in CHAINS.items():
            workflow = name.replace(" ", "-")
            running.create(workflow, chain(steps, step))
            alone = partial(_alone, running, workflow, steps, chains=scale.of(5, 1))
            beside = partial(_beside, running, workflow, steps)
            alone()
            found = interleaved(scale, {"alone": alone, "beside": beside})
            yield _row(name, found)


def _row(name: str, found: dict[str, list[Beside]]) -> Row:
    times = {side: [ms for round_ in rounds for ms in round_.step_ms] for side, rounds in found.items()}
    reached = middle([round_.lines_per_s for round_ in found["beside"]])
    return Row(
        f"{name} step beside {LINES_PER_S:,} lines/s", "ms", middle(times["beside"]),
        "alone", middle(times["alone"]), AT_MOST_TWICE,
        (
            f"{reached:,.0f} lines/s were recorded; {len(times['beside'])} chains beside",
            f"the slowest tenth takes {percentile(times['beside'], 0.9):.2f} ms a step or more",
        ),
    )  # fmt: skip


def _alone(running: Server, workflow: str, steps: int, *, chains: int) -> Beside:
    return Beside([_step_ms(running, workflow, steps) for _ in range(chains)], 0)


def _beside(running: Server, workflow: str, steps: int) -> Beside:
    flood = running.execute("flood")
    time.sleep(0.3)  # until it flows
    times = []
    while not times or not _over(running, flood):
        times.append(_step_ms(running, workflow, steps))
    run = ended(running, flood)
    (step,) = running.get(f"{RUNS}/{flood}/steps").json["data"]
    # The last chain may have run on after the flood's end.
    kept = times[:-1] or times
    return Beside(kept, run["lastSeq"] / step["duration"] * 1000)


def _step_ms(running: Server, workflow: str, steps: int) -> float:
    """Return a run's own duration in ms, by its number of steps."""
    return ended(running, running.execute(workflow))["duration"] / steps


def _over(running: Server, run_id: str) -> bool:
    answer = running.get(f"{RUNS}/{run_id}")
    return answer.status == 200 and answer.json["endTime"] is not None
