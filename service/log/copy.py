"""A copy of a log, made of its events in their order, and the lines in which they travel.

Each event is stored by the log's own rules, so a copy that comes to its end is whole: no seq and no position
is missing, and the head of every chain is the one that the original had at the same place.
"""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec
from isal.isal_zlib import crc32
from msgspec import Raw, Struct

from service.errors import Damaged, LogError, LogUnavailable
from service.log import APPEND_EVENTS_MAX, Appended, NewEvent, Recorded
from service.log.store import Append, Store

# Of one transaction of the copy, which is then flushed: hundreds of megabytes at the end, on the disk of a
# log that is being written, would hold up its commits for as long.
COMMIT_BYTES = 4 * 1024 * 1024


class NotWhole(LogError):
    """What came is no log from its first event on: something is missing, doubled or altered."""


class Line(Struct, frozen=True, omit_defaults=True):
    """An event on its way to a copy; ``chain`` (in hex) is there on the last one of an append."""

    stream: str
    seq: int
    position: int
    type: str
    event: Raw
    chain: str = ""


_encode = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder(Line).decode


def lines_of(events: Iterable[Recorded]) -> bytes:
    """Return a line of JSON for each event, its bytes as they are."""
    return _encode(
        [
            Line(event.stream, event.seq, event.position, event.type, Raw(event.data), event.chain.hex())
            for event in events
        ]
    )


def recorded_of(line: bytes) -> Recorded:
    """Return the event that a line of ``lines_of`` holds. Raises NotWhole."""
    try:
        found = _decode(line)
        data, chain = bytes(found.event), bytes.fromhex(found.chain)
    except (ValueError, UnicodeDecodeError) as error:
        raise NotWhole(f"a line is no event: {error}") from None
    return Recorded(found.stream, found.seq, found.position, found.type, data, crc32(data), chain)


class Copy:
    """A new file at ``path``, which must not exist, filled through ``add``; worth nothing before ``finish``.

    Raises LogUnavailable, here and wherever it writes: the disk is full, or fails.
    """

    def __init__(self, path: Path) -> None:
        self.position = 0  # of the last event that is stored: where an interrupted copy goes on
        self._append: list[Recorded] = []  # the events of an append that has not come to its end
        self._appends: list[Append] = []
        self._ends: list[Appended] = []  # what the store must answer to them
        self._waiting_bytes = 0
        try:
            self._store = Store(path, create=True, journal="OFF")
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, sqlite3.Error) as error:
            raise LogUnavailable(f"{path}: {error}") from error

    def add(self, events: Iterable[Recorded]) -> None:
        """Add the events that come next. Raises NotWhole for any others."""
        for event in events:
            if self._append and event.stream != self._append[0].stream:
                raise NotWhole(f"{self._append[0].stream}: an append has no end")
            self._append.append(event)
            if event.chain:
                self._complete()
            elif len(self._append) > APPEND_EVENTS_MAX:
                raise NotWhole(f"{event.stream}: an append has no end")

    def flush(self) -> int:
        """Store all whole appends, forget the rest, and return the position behind which to go on."""
        self._append = []
        self._commit()
        return self.position

    def finish(self) -> None:
        """Store the rest. Raises NotWhole when the last append has no end."""
        if self._append:
            raise NotWhole(f"{self._append[0].stream}: an append has no end")
        self._commit()
        self.close()

    def close(self) -> None:
        """Release the file; may be called twice."""
        if self._file >= 0:
            self._store.close()
            os.close(self._file)  # last: closing it would drop the locks that SQLite holds
            self._file = -1

    def _complete(self) -> None:
        events, self._append = self._append, []
        last = events[-1]
        size = sum([len(event.data) for event in events])
        new = [NewEvent(event.type, event.data) for event in events]
        self._appends.append(Append(last.stream, new, events[0].seq - 1, size))
        self._ends.append(Appended(last.seq, last.position, last.chain))
        self._waiting_bytes += size
        if self._waiting_bytes >= COMMIT_BYTES or len(self._appends) >= COMMIT_BYTES // 1024:
            self._commit()

    def _commit(self) -> None:
        appends, self._appends = self._appends, []
        ends, self._ends = self._ends, []
        if not appends:
            return
        try:
            staged = self._store.stage(appends)
            self._store.commit()
            self._store.place()
            os.fdatasync(self._file)
        except (sqlite3.Error, OSError) as error:
            raise LogUnavailable(f"the copy cannot be written: {error}") from error
        for append, end, done in zip(appends, ends, staged, strict=True):
            if done.answer != end:
                raise _fault(append, end, done.answer)
        self.position = ends[-1].position
        self._waiting_bytes = 0


def _fault(append: Append, end: Appended, answer: Appended | LogError) -> LogError:
    if isinstance(answer, LogError):
        return NotWhole(f"events are missing or come twice: {answer}")
    if answer.position != end.position:
        return NotWhole(f"{append.stream}: event {end.seq} stands at {end.position}, not {answer.position}")
    return Damaged(append.stream, end.seq, position=end.position)
