"""What the streams tell of themselves: counted where they run, read when somebody scrapes."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from service.api.readers import Readers
from service.log import Log
from service.ops.families import Family, Figures, Seen, one
from service.ops.histogram import FLUSHES_S, STEPS_S, Histogram
from service.wire.outgoing import Outgoing

LEFT = "left"  # how a stream ended whose client went away, or lost its network
SLOW_EVENTS = 1_000  # behind its run's newest is slow
LOOKS_PER_TURN = 100


def left(outgoing: Outgoing | None) -> str:
    """Return how a stream ended whose connection is gone: LEFT, or the code with which we gave up on it."""
    return str(outgoing.gave_up) if outgoing is not None and outgoing.gave_up else LEFT


class StreamMeter:
    """Counts what is delivered, and how streams end."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.fell_behind = 0
        self.push_s = Histogram(FLUSHES_S)
        self.ended: Counter[tuple[str, str]] = Counter()
        self.open_s: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(STEPS_S))

    def delivered(self, *, events: int, size: int) -> None:
        """Count what was handed to the network."""
        self.events += events
        self.bytes += size

    def over(self, form: str, how: str, seconds: float) -> None:
        """Count a stream by its end: a close code, a status, or LEFT."""
        self.ended[form, how] += 1
        self.open_s[form].observe(seconds)


def families(meter: StreamMeter, readers: Readers) -> list[Family]:
    """Return the metrics of the streams."""
    return [
        Family("tailrace_streams", "gauge",
               "Open streams, by form and phase: opening (the run is waited for), replaying, live.",
               lambda _: _open(readers), ("form", "phase")),
        Family("tailrace_streams_ended_total", "counter",
               "Streams that ended, by form and how: a WebSocket's close code, a status, end or left.",
               lambda _: list(meter.ended.items()), ("form", "how")),
        Family("tailrace_stream_seconds", "histogram", "How long streams were open that ended.",
               lambda _: _by_form(meter.open_s), ("form",)),
        Family("tailrace_events_delivered_total", "counter",
               "Events handed to the network, each once for every stream that it went to.",
               one(lambda: meter.events)),
        Family("tailrace_bytes_delivered_total", "counter",
               "Their bytes, as they are sent.", one(lambda: meter.bytes)),
        Family("tailrace_stream_push_seconds", "histogram",
               "From when a run has new events until every WebSocket that had caught up was given them.",
               one(lambda: meter.push_s)),
        Family("tailrace_streams_fell_behind_total", "counter",
               "Times that a live WebSocket could not take what is new, and had to read by itself again.",
               one(lambda: meter.fell_behind)),
        Family("tailrace_stream_replay_lag_events", "gauge",
               "Events that the replaying stream which has most before it still has to come to its edge.",
               lambda _: [((), max((reader.behind for reader in readers), default=0))]),
        Family("tailrace_stream_tail_lag_events", "gauge",
               "Events that the live stream which is furthest behind still has to come to its run's newest.",
               lambda seen: [((), max((lag for _, lag in _lags(readers, seen)), default=0))]),
        Family("tailrace_streams_slow", "gauge",
               f"Live streams that are more than {SLOW_EVENTS} events behind their run's newest, by form.",
               lambda seen: _slow(readers, seen), ("form",)),
    ]  # fmt: skip


def _open(readers: Readers) -> Figures:
    counted: Counter[tuple[str, str]] = Counter()
    for reader in readers:
        counted[reader.form, reader.phase] += 1
    return list(counted.items())


def _by_form(histograms: Mapping[str, Histogram]) -> Iterable[tuple[tuple[str, ...], Histogram]]:
    return [((form,), taken) for form, taken in histograms.items()]


def _lags(readers: Readers, seen: Seen) -> Iterator[tuple[str, int]]:
    """Yield the form of each live stream and how many events it is behind."""
    for reader in readers:
        if reader.phase == "live" and reader.place is not None and reader.run_id in seen.last_seqs:
            yield reader.form, max(0, seen.last_seqs[reader.run_id] - reader.place.after)


def _slow(readers: Readers, seen: Seen) -> Figures:
    return list(Counter((form,) for form, lag in _lags(readers, seen) if lag > SLOW_EVENTS).items())


async def last_seqs(log: Log, readers: Readers) -> dict[str, int]:
    """Return where the runs with live streams have come to. Raises LogUnavailable."""
    found: dict[str, int] = {}
    for count, run_id in enumerate({reader.run_id for reader in readers if reader.phase == "live"}, 1):
        found[run_id] = await log.wait(f"run/{run_id}", after=-2)
        if count % LOOKS_PER_TURN == 0:
            await asyncio.sleep(0)
    return found
