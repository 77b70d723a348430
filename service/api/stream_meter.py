"""What the streams tell of themselves: counted where they run, read when somebody scrapes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from service.api.readers import Readers
from service.ops.families import Family, Figures, Seen, one
from service.ops.histogram import FLUSHES_S, STEPS_S, Histogram

LEFT = "left"  # how a stream ended whose client went away, or lost its network


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
               lambda seen: _replay_lag(readers, seen)),
    ]  # fmt: skip


def _open(readers: Readers) -> Figures:
    counted: Counter[tuple[str, str]] = Counter()
    for reader in readers:
        counted[reader.form, reader.phase] += 1
    return list(counted.items())


def _by_form(histograms: Mapping[str, Histogram]) -> Iterable[tuple[tuple[str, ...], Histogram]]:
    return [((form,), taken) for form, taken in histograms.items()]


def _replay_lag(readers: Readers, _: Seen) -> Figures:
    return [((), max((reader.behind for reader in readers), default=0))]
