"""A log's file looked at from end to end, without changing it: every checksum, every chain, every place.

For files that nobody writes: the caller holds the lock of the path where there is one (lock.py).
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct
from sqlite_utils import Database

from migrations.log import log as migrations
from service.errors import Damaged, LogUnavailable
from service.log import Recorded, chain_next, chain_seed
from service.log.files import check_wal
from service.log.reader import Reader, uri_of

PAGE_EVENTS = 500
FAULTS_TOLD_MAX = 100
INTEGRITY_FAULTS_MAX = 20

TABLES = {"events", "places", "placed", "streams", "types"}
APPLIED = "SELECT name FROM _sqlite_migrations WHERE migration_set = 'log'"
LOST_ENDS = (
    "SELECT name, last_seq FROM streams LEFT JOIN events"
    " ON position = last_position AND stream = id AND seq = last_seq AND events.chain = streams.chain"
    " WHERE position IS NULL LIMIT ?"
)
COUNT_PLACED = "SELECT count(*) FROM events WHERE position <= (SELECT position FROM placed)"
LACKING = {
    "places": " AND NOT EXISTS (SELECT 1 FROM places WHERE places.stream = events.stream"
    " AND places.seq = events.seq AND places.position = events.position)",
    "typed": " AND NOT EXISTS (SELECT 1 FROM typed WHERE typed.type = events.type"
    " AND typed.position = events.position)",
}
COUNT = {"places": "SELECT count(*) FROM places", "typed": "SELECT count(*) FROM typed"}
# What no index knows yet, because the service was killed: streams that end behind what their rows say.
ENDS_UNPLACED = (
    "SELECT name, max(seq) FROM events JOIN streams ON id = stream"
    " WHERE position > (SELECT position FROM placed) GROUP BY stream"
)


class NoLog(LogUnavailable):
    """The file is not there, is not a log, or was written by a newer version."""


class _Unreadable(LogUnavailable):
    """Not even the file's table of contents can be read."""


class Verdict(Struct, frozen=True):
    """What a log's file holds, and what is wrong with it; ``faults`` are the first FAULTS_TOLD_MAX."""

    events: int
    streams: int
    position: int  # of the last event
    newest: bytes  # the last event
    faults: Sequence[str]
    faults_count: int


class _Link(NamedTuple):
    """Where a stream's chain stands; ``head`` is None behind a damaged event, until the next stored head.

    ``last`` is the seq at which the stream ends by its own account, -1 when it has none.
    """

    seq: int
    head: bytes | None
    last: int


def verify(path: Path, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Verdict:
    """Look at every event of the log at ``path``; ``progress`` is told positions: reached, and the last.

    Raises NoLog.
    """
    try:
        connection = _opened(path)
    except _Unreadable as error:
        return Verdict(0, 0, 0, b"", [str(error)], 1)
    reader = Reader(path, immutable=_has_no_wal(path))
    walk = _Walk(connection)
    streams = 0
    try:
        for fault in _of_file(connection):
            walk.tell(fault)
        try:
            _take_all(connection, reader, walk, progress)
        except (sqlite3.Error, UnicodeDecodeError, LogUnavailable) as error:
            walk.tell(f"the file cannot be read behind position {walk.position}: {error}")
        try:
            _compare(connection, walk)
            (streams,) = connection.execute("SELECT count(*) FROM streams").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            walk.tell(f"its tables cannot be compared: {error}")
    finally:
        reader.close()
        connection.close()
    return Verdict(walk.events, streams, walk.position, walk.newest, walk.faults, walk.faults_count)


def pages(path: Path) -> Iterator[tuple[Sequence[Recorded], int]]:
    """Yield all events of the log at ``path`` in their order, page by page, each with the last position.

    Raises NoLog, Damaged, LogUnavailable.
    """
    connection = _opened(path)
    reader = Reader(path, immutable=_has_no_wal(path))
    try:
        (head,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        after = 0
        while events := reader.page_all(after=after, limit=PAGE_EVENTS, types=None, upto=head):
            after = events[-1].position
            yield events, head
    finally:
        reader.close()
        connection.close()


def newest(path: Path) -> bytes | None:
    """Return the last event of the log at ``path``, None if there is none.

    Raises NoLog, Damaged, LogUnavailable.
    """
    connection = _opened(path)
    reader = Reader(path, immutable=_has_no_wal(path))
    try:
        (head,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        events = reader.page_all(after=head - 1, limit=1, types=None, upto=head)
        return events[0].data if events else None
    finally:
        reader.close()
        connection.close()


class _Walk:
    """Follows the chains of all streams at once; keeps those that have begun and not come to their end."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.events = self.position = self.faults_count = 0
        self.newest = b""
        self.faults: list[str] = []
        self._connection = connection
        self._links: dict[str, _Link] = {}
        self._ends: dict[str, int] | None = None

    def tell(self, fault: str) -> None:
        """Note a fault."""
        self.faults_count += 1
        if len(self.faults) < FAULTS_TOLD_MAX:
            self.faults.append(fault)

    def take(self, events: Sequence[Recorded]) -> None:
        """Check that ``events`` go on where the log and their streams stand."""
        for event in events:
            self._reach(event.position)
            seq, head, last = self._links.get(event.stream) or self._begun(event.stream)
            if event.seq != seq + 1:
                if event.seq > last >= 0:
                    self.tell(f"{event.stream}: event {event.seq} stands behind its end, {last}")
                else:
                    self.tell(f"{event.stream}: {_span('event', seq + 1, event.seq - 1)} missing")
                head = None
            if head is not None:
                head = chain_next(head, event.data)
            if event.chain:
                if head not in {None, event.chain}:
                    self.tell(f"{event.stream}: the chain does not fit at event {event.seq}")
                head = event.chain
            self._go_on(event.stream, _Link(event.seq, head, last))
            self.events += 1
            self.newest = event.data

    def skip(self, damaged: Damaged) -> None:
        """Note a damaged event and go on behind it."""
        assert damaged.position is not None
        if not damaged.stream:
            self.tell(f"{_span('position', self.position + 1, damaged.position)} damaged, of no known stream")
            self.events += damaged.position - self.position
            self.position = damaged.position
            return
        self._reach(damaged.position)
        self.events += 1
        # The row's own seq may be what is damaged; the next one in its stream is the likelier.
        link = self._links.get(damaged.stream)
        seq = damaged.seq if link is None else link.seq + 1
        last = self._begun(damaged.stream).last if link is None else link.last
        self.tell(f"{damaged.stream}: event {seq} is damaged (position {damaged.position})")
        self._go_on(damaged.stream, _Link(seq, None, last))

    def open_ends(self) -> list[str]:
        """Return the streams that did not come to the end that they should have."""
        return [f"{name}: ends at event {seq}, not {last}" for name, (seq, _, last) in self._links.items()]

    def _begun(self, stream: str) -> _Link:
        if self._ends is None:
            self._ends = dict(self._connection.execute(ENDS_UNPLACED).fetchall())
        query = "SELECT last_seq FROM streams WHERE name = ?"
        row = self._connection.execute(query, (stream,)).fetchone()
        last = -1 if row is None else max(int(row[0]), self._ends.get(stream, -1))
        return _Link(-1, chain_seed(stream), last)

    def _go_on(self, stream: str, link: _Link) -> None:
        if link.seq == link.last:
            self._links.pop(stream, None)
        else:
            self._links[stream] = link

    def _reach(self, position: int) -> None:
        if position != self.position + 1:
            self.tell(f"{_span('position', self.position + 1, position - 1)} missing")
        self.position = position


def _span(what: str, first: int, last: int) -> str:
    if last < first:
        return f"{what} {first} is in the wrong place or"
    return f"{what} {first} is" if first == last else f"{what}s {first} to {last} are"


def _opened(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write. Raises NoLog, _Unreadable."""
    if not path.is_file():
        raise NoLog(f"{path} is not there")
    check_wal(path)
    uri = uri_of(path, immutable=_has_no_wal(path))
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    kind: type[LogUnavailable] = NoLog
    try:
        wrong = _foreign(connection)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        wrong = f"cannot be read: {error}"
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF == sqlite3.SQLITE_CORRUPT:
            kind = _Unreadable
    if wrong is not None:
        connection.close()
        raise kind(f"{path} {wrong}")
    return connection


def _has_no_wal(path: Path) -> bool:
    """Say whether the file is all there is: then it is read without making a WAL beside it."""
    return not Path(f"{path}-wal").exists()


def _foreign(connection: sqlite3.Connection) -> str | None:
    """Return why this is no log that we can read."""
    if not _tables(connection) >= TABLES:
        return "is not a log of Tailrace"
    applied = connection.execute(APPLIED).fetchall()
    known = {step.name for step in migrations.pending(Database(memory=True))}
    newer = sorted({str(name) for (name,) in applied} - known)
    return f"was written by a newer version ({', '.join(newer)})" if newer else None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _take_all(
    connection: sqlite3.Connection, reader: Reader, walk: _Walk, progress: Callable[[int, int], None]
) -> None:
    """Walk through all that can be read, and see that every stream came to its end."""
    (head,) = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    while walk.position < head:
        try:
            events = reader.page_all(after=walk.position, limit=PAGE_EVENTS, types=None, upto=head)
        except Damaged as damaged:
            walk.skip(damaged)
        else:
            if not events:
                break
            walk.take(events)
            progress(walk.position, head)
    for fault in walk.open_ends():
        walk.tell(fault)


def _of_file(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield what SQLite finds wrong with its pages and indexes."""
    try:
        for (said,) in connection.execute(f"PRAGMA integrity_check({INTEGRITY_FAULTS_MAX})").fetchall():
            if said != "ok":
                yield f"SQLite: {said}"
    except (sqlite3.Error, UnicodeDecodeError) as error:
        yield f"SQLite: {error}"


def _compare(connection: sqlite3.Connection, walk: _Walk) -> None:
    """Compare where the streams ended with what their own rows say, and the index with the events."""
    for name, last_seq in connection.execute(LOST_ENDS, (FAULTS_TOLD_MAX,)).fetchall():
        walk.tell(f"{name}: its end does not fit event {last_seq}")
    for index in sorted(_tables(connection) & LACKING.keys()):  # a log of an older version lacks one
        (events,), (rows,), (lacks,) = (
            connection.execute(query).fetchone()
            for query in (COUNT_PLACED, COUNT[index], COUNT_PLACED + LACKING[index])
        )
        if lacks or rows != events:
            walk.tell(f"the index {index} lacks {lacks} events and has {max(rows - events, 0)} too many")
