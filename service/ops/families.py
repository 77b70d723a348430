"""Every metric of ours: its name, what it says, and where its figures are.

A room that brings more of them gives Metrics a list of its own families, made as these are.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal

from msgspec import Struct

from service.ops.histogram import Histogram
from service.ops.meters import Meters

SOURCES = ("memory", "file", "disk", "rows")  # of segments

Figures = Iterable[tuple[tuple[str, ...], float | Histogram]]  # each with the values of its labels


class Seen(Struct, frozen=True):
    """What had to be waited for. None: it cannot be had just now, and is left out."""

    runs: Mapping[str, int] | None = None
    lag_events: int | None = None
    lag_s: float | None = None
    last_seqs: Mapping[str, int] = {}  # of the runs with live streams


class Family(Struct, frozen=True):
    """A metric. A counter's name ends in _total, a histogram's in its unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[Seen], Figures]
    labels: tuple[str, ...] = ()


class Engine(Struct, frozen=True):
    """How much the engine has at work."""

    alive: int
    waiting: int
    left_out: int
    places_free: int


class Sources(Struct, frozen=True, kw_only=True):
    """Where the rooms' present state is read; front.py knows the rooms. ``engine``: None at first."""

    version: str
    look: Callable[[], Awaitable[Seen]]
    log_unavailable: Callable[[], bool]
    log_events: Callable[[], int]
    appends_waiting: Callable[[], int]
    free_bytes: Callable[[], int]
    min_free_bytes: int
    engine: Callable[[], Engine | None]
    rebuilds: Callable[[], int]
    segments: Callable[[], Mapping[str, int]]
    requests_held: Callable[[], int]


def families(meters: Meters, sources: Sources) -> list[Family]:
    """Return every metric of ours."""
    return [
        *_of_log(meters, sources),
        *_of_engine(meters, sources),
        *_of_views(sources),
        *_of_requests(meters, sources),
        *_of_process(meters, sources),
    ]


def one(read: Callable[[], float | Histogram | None]) -> Callable[[Seen], Figures]:
    """Return a reading of a metric without labels; None leaves it out."""

    def figures(_: Seen) -> Figures:
        value = read()
        return [] if value is None else [((), value)]

    return figures


def each(read: Callable[[], Mapping[str, float]]) -> Callable[[Seen], Figures]:
    """Return a reading of a metric with one label."""
    return lambda _: [((name,), value) for name, value in read().items()]


def _seen(read: Callable[[Seen], float | None]) -> Callable[[Seen], Figures]:
    def figures(seen: Seen) -> Figures:
        value = read(seen)
        return [] if value is None else [((), value)]

    return figures


def _of_log(meters: Meters, sources: Sources) -> list[Family]:
    log = meters.log
    return [
        Family("tailrace_append_seconds", "histogram",
               "From an append to its answer, which comes after the flush.", one(lambda: log.append_s)),
        Family("tailrace_flush_seconds", "histogram",
               "One commit of the log, with the flush of the disk (fsync).", one(lambda: log.flush_s)),
        Family("tailrace_flush_appends", "histogram",
               "Appends that shared one commit.", one(lambda: log.group_appends)),
        Family("tailrace_events_appended_total", "counter",
               "Events stored since the start.", one(lambda: log.events)),
        Family("tailrace_event_bytes_appended_total", "counter",
               "Bytes of the events stored since the start.", one(lambda: log.bytes)),
        Family("tailrace_appends_refused_total", "counter",
               "Appends answered by an error.", each(lambda: log.refused_by), ("reason",)),
        Family("tailrace_appends_waiting", "gauge",
               "Appends that have no answer yet.", one(sources.appends_waiting)),
        Family("tailrace_log_unavailable", "gauge",
               "1 while the log cannot be written.", one(lambda: int(sources.log_unavailable()))),
        Family("tailrace_log_events", "gauge",
               "Events in the log.", one(sources.log_events)),
        Family("tailrace_disk_free_bytes", "gauge",
               "Free space beside the log.", one(sources.free_bytes)),
        Family("tailrace_disk_min_free_bytes", "gauge",
               "Below so much free space no run is accepted (TAILRACE_MIN_FREE_BYTES).",
               one(lambda: sources.min_free_bytes)),
    ]  # fmt: skip


def _of_engine(meters: Meters, sources: Sources) -> list[Family]:
    engine = meters.engine

    def of(name: str) -> Callable[[Seen], Figures]:
        def read() -> float | None:
            found = sources.engine()
            return None if found is None else getattr(found, name)

        return one(read)

    return [
        Family("tailrace_runs", "gauge", "Runs by status, those that are over included.",
               lambda seen: [((status,), n) for status, n in (seen.runs or {}).items()], ("status",)),
        Family("tailrace_runs_alive", "gauge", "Runs at work (TAILRACE_MAX_RUNS at most).", of("alive")),
        Family("tailrace_runs_waiting", "gauge", "Runs that wait for others to end.", of("waiting")),
        Family("tailrace_runs_left_out", "gauge",
               "Unfinished runs that cannot be taken up: their events cannot be read.", of("left_out")),
        Family("tailrace_run_seconds", "histogram", "Runs that ended, from accepted to sealed.",
               lambda _: [((status,), taken) for status, taken in engine.run_s.items()], ("status",)),
        Family("tailrace_attempts_running", "gauge", "Attempts of steps that run now.",
               each(lambda: engine.running), ("type",)),
        Family("tailrace_attempt_places_free", "gauge",
               "Attempts that could begin at once (of TAILRACE_MAX_PARALLEL_STEPS).", of("places_free")),
        Family("tailrace_step_seconds", "histogram",
               "Steps that ended, from the first attempt to the end, pauses included; 0 if never begun.",
               lambda _: list(engine.step_s.items()), ("type", "outcome")),
        Family("tailrace_steps_repeated_total", "counter", "Attempts that are followed by another.",
               lambda _: list(engine.repeated.items()), ("type", "outcome")),
    ]  # fmt: skip


def _of_views(sources: Sources) -> list[Family]:
    def segments(name: str) -> Callable[[Seen], Figures]:
        return one(lambda: sources.segments()[name])

    return [
        Family("tailrace_projection_lag_events", "gauge",
               "Events at the end of the log that the lists do not show yet.",
               _seen(lambda seen: seen.lag_events)),
        Family("tailrace_projection_lag_seconds", "gauge",
               "Age of the oldest event that the lists do not show yet; 0 if they show all.",
               _seen(lambda seen: seen.lag_s)),
        Family("tailrace_projection_rebuilds_total", "counter",
               "Times that the lists were made again from the log since the start.", one(sources.rebuilds)),
        Family("tailrace_segments_cache_bytes", "gauge",
               "Segments kept in memory.", segments("cache_bytes")),
        Family("tailrace_segment_reads_total", "counter",
               "Reads of history, by where it was: memory, file (held by the kernel), disk (waited for), "
               "rows (not sealed, or not to be had).",
               each(lambda: {source: sources.segments()[source] for source in SOURCES}),
               ("source",)),
        Family("tailrace_segments_sealed_total", "counter",
               "Segments written since the start.", segments("sealed")),
        Family("tailrace_segments_pending", "gauge",
               "Runs that wait to be sealed.", segments("pending")),
    ]  # fmt: skip


def _of_requests(meters: Meters, sources: Sources) -> list[Family]:
    requests = meters.requests
    return [
        Family("tailrace_http_requests_total", "counter",
               "Requests answered, by the route's template; streams are counted when they are over.",
               lambda _: list(requests.answers.items()), ("route", "method", "status")),
        Family("tailrace_http_request_seconds", "histogram",
               "Requests from arrival to the end of the answer, without streams.",
               lambda _: list(requests.answer_s.items()), ("route", "method")),
        Family("tailrace_http_requests_held", "gauge",
               "Requests that wait for events (wait=).", one(sources.requests_held)),
    ]  # fmt: skip


def _of_process(meters: Meters, sources: Sources) -> list[Family]:
    return [
        Family("tailrace_info", "gauge", "1, with the version.",
               each(lambda: {sources.version: 1}), ("version",)),
        Family("tailrace_loop_lag_seconds", "histogram",
               "How late the event loop comes to what is due, looked at four times a second.",
               one(lambda: meters.loop.late_s)),
        Family("tailrace_garbage_collection_seconds", "histogram",
               "Full garbage collections: everything stands still meanwhile.",
               one(lambda: meters.garbage.full_s)),
    ]  # fmt: skip
