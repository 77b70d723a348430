"""What a watcher costs in memory while nothing happens: ten thousand of them, on one run."""

import resource
from collections.abc import Iterator
from pathlib import Path
from time import sleep

from msgspec import Struct

from tests.bench.client.crowd import crowd
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale
from tests.bench.running import rss_bytes, server
from tests.bench.sides import Kind, fed, kinds
from tests.server import Server

SPARE_FILES = 1_000  # descriptors that a server needs for other things
SETTLE_S = 0.5


class Held(Struct, frozen=True):
    """How many watchers were added to those that were there, what that took, and how long connecting them."""

    watchers: int
    bytes: int
    connected_s: float


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield KiB per watcher."""
    watchers = min(scale.of(10_000, 400), files_max() - SPARE_FILES)
    limits = {"TAILRACE_MAX_WATCHERS": 2 * watchers, "TAILRACE_MAX_WATCHERS_PER_RUN": 2 * watchers}
    with server(directory, **limits) as running:
        # Once each: a second time would be served from what the first had freed.
        found = {kind: _hold(kind, watchers, running) for kind in kinds(None) if kind != "best hub"}
    each = {kind: held.bytes / held.watchers / 1024 for kind, held in found.items()}
    rates = ", ".join(f"{kind} {held.watchers / held.connected_s:,.0f} /s" for kind, held in found.items())
    yield Row(
        f"memory per idle watcher, {watchers:,} of them", "KiB", each["ours"],
        "guide's hub", each.get("guide's hub"), Target("ratio", "most", 1.0),
        (f"by the process's RSS; connected at {rates}",),
    )  # fmt: skip


def _hold(kind: Kind, watchers: int, running: Server) -> Held:
    first = watchers // 10  # whatever is only needed once is there after these
    with crowd() as watching, fed(kind, watching, running, None) as side:
        watching.connect(side.place, each=first)
        sleep(SETTLE_S)
        before = rss_bytes(side.pid)
        heard = watching.connect(side.place, each=watchers - first)
        assert heard.watchers == watchers, heard
        sleep(SETTLE_S)
        return Held(watchers - first, rss_bytes(side.pid) - before, heard.connected_s)


def files_max() -> int:
    """Return how many files a process may have open, the limit raised as far as it goes for all to come."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
