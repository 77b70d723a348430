"""A reader among a thousand that never reads: what it costs the others, and the service."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from tests.bench.client.crowd import Crowd, Heard, Place, crowd
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, spread
from tests.bench.running import rss_bytes, server, settled
from tests.bench.sides import Fed, ours
from tests.server import Server

PER_S = 100
HISTORY_EVENTS = 10_000  # 2 MB, which no buffer on the way to a reader holds
PAGE_BYTES = 4096
ROW_S = 30.0
MIB = 1024 * 1024


class Beside(Struct, frozen=True):
    """What the others heard, and by how much the service grew meanwhile."""

    heard: Heard
    grown_bytes: int


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield the others' p99, and the memory."""
    watchers = scale.of(1_000, 40)
    events = scale.of(2 * PER_S, PER_S // 5)
    with server(directory) as running, crowd() as watching:
        side = ours(running, watching)
        live = [f"{path}?after=tail" for path in side.place.paths]
        watching.produce(HISTORY_EVENTS)  # nobody is there to wait for
        _stored(running, side)
        watching.connect(Place(side.place.address, live), each=watchers)
        watching.produce(events, per_s=PER_S)
        sides = {
            "without": partial(_measure, watching, side, events),
            "with": partial(_measure, watching, side, events, stuck=True),
        }
        found = interleaved(scale, sides, row_s=ROW_S)
    p99s = {name: [round_.heard.p99_ms for round_ in rounds] for name, rounds in found.items()}
    job = f"a stuck reader beside {watchers:,} watchers, {PER_S} events/s"
    yield Row(
        f"{job}, p99 of the others", "ms", middle(p99s["with"]), "without it", middle(p99s["without"]),
        Target("ratio", "most", 1.1),
        (f"with: {spread(p99s['with'])} (ms); without: {spread(p99s['without'])} (ms)",),
    )  # fmt: skip
    grown = {
        name: max(middle([round_.grown_bytes for round_ in rounds]), PAGE_BYTES) / MIB
        for name, rounds in found.items()
    }
    yield Row(
        f"{job}, RSS", "MiB", grown["with"], "without it", grown["without"],
        Target("figure", "most", 1.0), ("by how much it grew in a round",),
    )  # fmt: skip


def _measure(watching: Crowd, side: Fed, events: int, *, stuck: bool = False) -> Beside:
    before = rss_bytes(side.pid)
    if not stuck:
        heard = watching.produce(events, per_s=PER_S)
        return Beside(heard, rss_bytes(side.pid) - before)
    with watching.stuck(side.place):
        heard = watching.produce(events, per_s=PER_S)
        return Beside(heard, rss_bytes(side.pid) - before)


def _stored(running: Server, side: Fed) -> None:
    """Return once the history is in the log."""
    path = side.place.paths[0].removesuffix("/stream")
    deadline = time.monotonic() + 30
    while running.get(f"{path}/events?after={HISTORY_EVENTS}&limit=1").status != 200:  # it is not that long
        assert time.monotonic() < deadline
        time.sleep(0.05)
    settled(running)
