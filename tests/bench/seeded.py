"""Logs that hold runs before the service starts, written by the log's own writer as fast as it goes."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice, zip_longest
from pathlib import Path

from msgspec import Struct

from service.domain.events import (
    Payload,
    RunComplete,
    RunStart,
    StepComplete,
    StepLog,
    StepStart,
    encode_run_event,
)
from service.log import APPEND_EVENTS_MAX, NewEvent
from service.log.checks import check_append
from service.log.store import Append, opened

EVENT_BYTES = 204  # of an envelope, as lines of programs have them
TIMESTAMP = "2026-01-02T03:04:05.678Z"
STEP = "print"
ENDED = {"type": "command", "config": {"command": "true"}}
UNENDED = {"type": "wait", "config": {"duration": "1h"}}  # at a start it is taken up and goes on waiting
CHECKPOINT_EVENTS = 16_000


class Seed(Struct, frozen=True):
    """A run that shows ``events``, all but a few of EVENT_BYTES; one that is not ``finished`` has no seal."""

    run_id: str
    events: int
    finished: bool = True

    def all_events(self) -> Iterator[NewEvent]:
        """Yield the events, seq 0 first."""
        definition = {"steps": {STEP: {"id": STEP, **(ENDED if self.finished else UNENDED)}}}
        yield self._event(RunStart("w", 1, definition, {}, {"type": "bench"}, "hash"), 0)
        yield self._event(StepStart(STEP, STEP, 1), 1)
        lines = self.events - (2 if self.finished else 1)
        yield from log_lines(self.run_id, range(2, 2 + lines))
        if self.finished:
            yield self._event(StepComplete(STEP, STEP, "success", 1, 1), self.events)
            yield self._event(RunComplete("success", 1, self.events), self.events + 1)

    def shown(self) -> list[bytes]:
        """Return what a watcher is sent, if nothing is added to the run."""
        return [event.data for event in islice(self.all_events(), 1, self.events + 1)]

    def _event(self, payload: Payload, seq: int) -> NewEvent:
        return NewEvent(payload.type, encode_run_event(self.run_id, payload, seq=seq, timestamp=TIMESTAMP))


def log_lines(run_id: str, seqs: Iterable[int]) -> Iterator[NewEvent]:
    """Yield a step_log for each seq, its envelope of EVENT_BYTES."""
    # Encoded once and filled in: the encoder would take longer than the log.
    head, middle, tail = _mould(run_id)
    room = EVENT_BYTES - len(head) - len(middle) - len(tail)
    for seq in seqs:
        number = b"%d" % seq
        message = (b"line %b " % number).ljust(room - len(number), b"x")
        yield NewEvent(StepLog.type, b"".join((head, message, middle, number, tail)))


def line_room(run_id: str) -> int:
    """Return how many characters of message an event of EVENT_BYTES has room for, its seq under 100,000."""
    return EVENT_BYTES - sum(map(len, _mould(run_id))) - len("99999")


@cache
def _mould(run_id: str) -> tuple[bytes, bytes, bytes]:
    event = StepLog(STEP, "info", "MESSAGE", TIMESTAMP)
    data = encode_run_event(run_id, event, seq=8_888_888, timestamp=TIMESTAMP)
    head, _, rest = data.partition(b"MESSAGE")
    middle, _, tail = rest.partition(b"8888888")
    return head, middle, tail


def write(path: Path, seeds: Iterable[Seed]) -> None:
    """Make a log at ``path`` that holds these runs, one after the other."""
    with _writing(path) as append:
        for seed in seeds:
            for frame in _frames(seed):
                append(*frame)


def write_in_turn(path: Path, seeds: Iterable[Seed]) -> None:
    """Make a log at ``path`` that holds these runs, a thousand events of each in turn."""
    with _writing(path) as append:
        for frames in zip_longest(*map(_frames, seeds)):
            for frame in frames:
                if frame is not None:
                    append(*frame)


def _frames(seed: Seed) -> Iterator[tuple[Seed, list[NewEvent]]]:
    events = seed.all_events()
    while frame := list(islice(events, APPEND_EVENTS_MAX)):
        yield seed, frame


@contextmanager
def _writing(path: Path) -> Iterator[Callable[[Seed, list[NewEvent]], None]]:
    store = opened(path)
    seqs: Counter[str] = Counter()
    written = 0

    def append(seed: Seed, frame: list[NewEvent]) -> None:
        nonlocal written
        stream = f"run/{seed.run_id}"
        (staged,) = store.stage([Append(stream, frame, seqs[stream] - 1, check_append(frame))])
        store.commit()
        store.place()
        assert staged.events, staged.answer
        seqs[stream] += len(frame)
        written += len(frame)
        if written >= CHECKPOINT_EVENTS:  # a WAL that never ends is slow to read
            store.checkpoint()
            written = 0

    yield append
    store.close()
