"""The first message of a very long run in a very long log, against JetStream's, and a short run's."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from tests.bench.client import Watched, watch
from tests.bench.figures import Row, Target
from tests.bench.nats_peer import Nats, nats
from tests.bench.replay import JETSTREAM
from tests.bench.rounds import Scale, interleaved, middle, percentile
from tests.bench.running import RUNS, settled
from tests.bench.seeded import EVENT_BYTES, Seed, write_in_turn
from tests.server import Server

SHORT = Seed("short", 1_000)
LONG = 5  # runs, written in turn: a log of five times the length of one
CONNECTIONS = 40
FORGOTTEN_S = 11.0  # JetStream keeps what was written for 10 s


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield ms from sending the upgrade to the first message, to first readers of a run and to later ones."""
    runs = [Seed(f"long-{number}", scale.of(200_000, 5_000, large=1_000_000)) for number in range(LONG)]
    with TemporaryDirectory(dir=directory) as place, nats(Path(place)) as running_nats:
        if running_nats is not None:
            names = [seed.run_id for seed in runs]
            running_nats.store(names, events=runs[0].events, event_bytes=EVENT_BYTES)
        stored_at = time.monotonic()
        write_in_turn(Path(place) / "tailrace.db", [*runs, SHORT])
        with Server(Path(place)) as running:
            settled(running)
            sides: dict[str, Callable[[Seed], float]] = {"ours": partial(_first_ms, running)}
            if running_nats is not None:
                sides["JetStream"] = partial(_jetstream_first_ms, running_nats)
                time.sleep(0 if scale.quick else max(0, stored_at + FORGOTTEN_S - time.monotonic()))
            _first_ms(running, SHORT)
            first = {side: [measure(seed) for seed in runs] for side, measure in sides.items()}
            again: dict[str, Callable[[], float]] = {
                side: partial(measure, runs[0]) for side, measure in sides.items()
            }
            again["short"] = partial(_first_ms, running, SHORT)
            later = interleaved(replace(scale, rounds=scale.of(CONNECTIONS, 3)), again)
    yield from _report(f"run of {runs[0].events:,} in a log of {LONG * runs[0].events:,}", first, later)


Found = dict[str, list[float]]


def _report(run: str, first: Found, later: Found) -> Iterator[Row]:
    def row(reader: str, found: Found, against: str, peer: str, target: Target | None) -> Row:
        spent = found["ours"]
        note = f"{len(spent)} connections; p90 {percentile(spent, 0.9):.2f} ms"
        return Row(
            f"first message to {reader}, {run}", "ms", middle(spent),
            against, middle(found[peer]) if peer in found else None, target, (note,),
        )  # fmt: skip

    yield row("a first reader", first, JETSTREAM, "JetStream", Target("ratio", "most", 0.3))
    yield row("a later reader", later, JETSTREAM, "JetStream", None)
    yield row("a later reader", later, f"run of {SHORT.events:,}", "short", Target("ratio", "most", 1.2))


def _first_ms(running: Server, seed: Seed) -> float:
    return _one(watch(running.port, f"{RUNS}/{seed.run_id}/stream", messages=1))


def _jetstream_first_ms(running: Nats, seed: Seed) -> float:
    return _one(running.watch(seed.run_id, messages=1))


def _one(watched: list[Watched]) -> float:
    (client,) = watched
    assert client.messages == 1, client
    return client.first_ms
