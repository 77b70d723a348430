"""Durable appends of single events, against Redis Streams that flush before they answer."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import uvloop
from msgspec import Struct

from service.domain.events import StepLog, encode_run_event
from service.log import NewEvent
from service.log.sqlite import SqliteLog
from service.log.store import Store
from tests.bench import nats_peer, redis_peer
from tests.bench.figures import Row, Target
from tests.bench.rounds import Scale, interleaved, middle, percentile, spread

EVENT_BYTES = 200
TIMESTAMP = "2026-01-02T03:04:05.678Z"


class Appending(Struct, frozen=True):
    """What one round of ours found."""

    per_s: float
    p50_ms: float
    p99_ms: float
    per_flush: float


Load = Appending | redis_peer.Load | nats_peer.Load


class Peers(Struct, frozen=True):
    """Who else is here."""

    redis_port: int | None
    nats: nats_peer.Nats | None


def rows(scale: Scale, directory: Path) -> Iterator[Row]:
    """Yield 100 appenders and one appender."""
    with ExitStack() as stack:
        redis = redis_peer.redis(directory) if redis_peer.installed() else nullcontext()
        always = nats_peer.nats(directory, jetstream="sync_interval: always")
        peers = Peers(stack.enter_context(redis), stack.enter_context(always))
        yield from _rows(scale, directory, peers, 100, scale.of(150_000, 5_000), scale.of(10_000, 500))
        yield from _rows(scale, directory, peers, 1, scale.of(4_000, 200), scale.of(2_000, 100))


def _rows(
    scale: Scale, directory: Path, peers: Peers, appenders: int, count: int, nats_count: int
) -> Iterator[Row]:
    sides: dict[str, Callable[[], Load]] = {
        "ours": partial(append, directory, appenders=appenders, appends=count)
    }
    if peers.redis_port is not None:
        sides["Redis always"] = partial(
            redis_peer.load, peers.redis_port, clients=appenders, appends=count, event_bytes=EVENT_BYTES
        )
    if peers.nats is not None:
        sides["JetStream always"] = partial(
            peers.nats.load, clients=appenders, appends=nats_count, event_bytes=EVENT_BYTES
        )
    found = interleaved(scale, sides)
    rates = {side: middle([round_.per_s for round_ in rounds]) for side, rounds in found.items()}
    flushes = middle([round_.per_flush for round_ in found["ours"]])
    ours = (_note("ours", found["ours"]), f"ours: {flushes:.1f} appends per flush")
    targets = {"Redis always": 2.0 if appenders > 1 else 1.0}
    if appenders > 1:
        targets["JetStream always"] = 20.0
    for peer, least in targets.items():
        theirs = (_note(peer, found[peer]),) if peer in found else ()
        yield Row(
            f"appends, {appenders} appender{'s' if appenders > 1 else ''}", "/s", rates["ours"],
            peer, rates.get(peer), Target("ratio", "least", least),
            (*ours, *theirs) if peer == "Redis always" else theirs,
        )  # fmt: skip


def _note(name: str, found: Sequence[Load]) -> str:
    p50, p99 = (middle([getattr(round_, key) for round_ in found]) for key in ("p50_ms", "p99_ms"))
    return f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms; {spread([round_.per_s for round_ in found])}"


def append(directory: Path, *, appenders: int, appends: int) -> Appending:
    """Append single events of 200 bytes, each appender to a stream of its own, to a log that is new."""
    with tempfile.TemporaryDirectory(dir=directory) as place, counted_commits() as commits:
        return uvloop.run(_append(Path(place) / "log.db", commits, appenders, appends // appenders))


async def _append(path: Path, commits: list[int], appenders: int, each: int) -> Appending:
    log = SqliteLog.open(path)
    latencies: list[float] = []
    event = an_event()

    async def appender(stream: str) -> None:
        for seq in range(-1, each - 1):
            began = time.perf_counter()
            await log.append(stream, [event], expected_seq=seq)
            latencies.append(time.perf_counter() - began)

    commits[0] = 0
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(appenders):
            group.create_task(appender(f"run/r{number}"))
    took = time.perf_counter() - began
    await log.close()
    p50, p99 = percentile(latencies, 0.5) * 1000, percentile(latencies, 0.99) * 1000
    return Appending(len(latencies) / took, p50, p99, len(latencies) / commits[0])


def an_event() -> NewEvent:
    """Return an envelope of exactly 200 bytes."""
    line = StepLog("step", "info", "", TIMESTAMP)
    size = len(encode_run_event("run", line, seq=1, timestamp=TIMESTAMP))
    line = StepLog("step", "info", "x" * (EVENT_BYTES - size), TIMESTAMP)
    return NewEvent(line.type, encode_run_event("run", line, seq=1, timestamp=TIMESTAMP))


@contextmanager
def counted_commits() -> Iterator[list[int]]:
    """Count the flushes of the log while the context lasts, in the list's only item."""
    count, commit = [0], Store.commit

    def counting(store: Store) -> None:
        count[0] += 1
        commit(store)

    with patch.object(Store, "commit", counting):
        yield count
