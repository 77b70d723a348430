"""What a first look at finished runs, which may have to be sealed for it, costs a run that is being written."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.client import watch
from tests.bench.client.crowd import Heard, crowd
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import RUNS, SETTINGS, settled
from tests.bench.seeded import Seed, write
from tests.bench.sides import ours
from tests.server import Server

RUNS_A_ROUND = 10
RUN_EVENTS = 20_000
SECONDS = 2


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield the rate and the p99 of events written at half the maximum, alone and beside the replays."""
    events = scale.of(RUN_EVENTS, 500)
    runs = [Seed(f"sealed-{number}", events) for number in range(RUNS_A_ROUND * scale.rounds)]
    with TemporaryDirectory(dir=directory) as place:
        write(Path(place) / "tailrace.db", runs)
        with Server(Path(place), **SETTINGS) as running, crowd() as watching:
            watching.connect(ours(running, watching).place, each=1)
            settled(running)
            fastest = max(watching.produce(scale.of(50_000, 2_000)).per_s for _ in range(3))
            half = int(fastest / 2)
            measure = partial(watching.produce, half * SECONDS // scale.of(1, 10), per_s=half)
            unseen = iter(runs)
            sides = {"alone": measure, "beside": partial(_beside, measure, running, unseen)}
            found = interleaved(scale, sides)
    yield from _report(found, half)


def _report(found: dict[str, list[Heard]], half: int) -> Iterator[Row]:
    job = f"{half:,} events/s written beside first replays"
    for what, unit, value, target in (
        ("rate", "/s", lambda heard: heard.per_s, Target("ratio", "least", 0.85)),
        ("p99", "ms", lambda heard: heard.p99_ms, Target("ratio", "most", 1.2)),
    ):
        values = {side: [value(heard) for heard in rounds] for side, rounds in found.items()}
        yield Row(
            f"{job}, {what}", unit, middle(values["beside"]), "alone", middle(values["alone"]), target,
            (f"beside: {spread(values['beside'])}; alone: {spread(values['alone'])}",),
        )  # fmt: skip


def _beside(measure: partial[Heard], running: Server, unseen: Iterator[Seed]) -> Heard:
    with ThreadPoolExecutor(1) as thread:
        replays = thread.submit(_replay, running, [next(unseen) for _ in range(RUNS_A_ROUND)])
        heard = measure()
        replays.result()
    return heard


def _replay(running: Server, runs: list[Seed]) -> None:
    for seed in runs:
        (watched,) = watch(running.port, f"{RUNS}/{seed.run_id}/stream")
        assert (watched.messages, watched.code) == (seed.events, 1000), watched
