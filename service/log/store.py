"""The log's file as its one writer sees it: a single connection that inserts, commits and checkpoints.

SQLite before 3.51.3 can damage a WAL that two connections write or checkpoint at once: never open a second.
"""

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from isal.isal_zlib import crc32
from msgspec import Struct
from sqlite_utils import Database

from migrations.log import log as migrations
from service.errors import Damaged, LogError, LogUnavailable, WrongExpectedSeq
from service.log import Appended, NewEvent, Recorded, chain_next, chain_seed
from service.log.checks import label, row_checksum
from service.log.files import Files, check, new_signature, record
from service.log.wal import flush_names, last_to_close, lengthen, write_afresh

HEADS_MAX = 20_000  # streams whose last seq and chain head are kept in memory, about 300 bytes each
HEADS_KEPT = HEADS_MAX * 15 // 16  # when there are more; to let one go, its row has to be up to date
BUSY_TIMEOUT_S = 5.0  # how long a foreign connection may hold the file before an append fails
UNPLACED_MAX = 2_000  # events that no index has yet: for each, the next commit waits 2 to 4 us once
UNPLACED_BYTES_MAX = 512 * 1024
ROWS_MAX = 512  # of one INSERT
ROWS_EXACT = 128  # up to here a statement for each number of rows, then of multiples; all stay prepared
ROWS_STEP = 64
STATEMENTS_KEPT = 3 * (ROWS_EXACT + ROWS_MAX // ROWS_STEP)  # prepared: 7 MiB, should ever all be needed
WAL_BYTES = 8 * 1024 * 1024  # that the WAL has from the start, and about what it may come to hold
WAL_BYTES_KEPT = 64 * 1024 * 1024

HEAD = (
    "SELECT id, last_seq, streams.chain, events.chain FROM streams"
    " LEFT JOIN events ON position = last_position AND stream = id AND seq = last_seq WHERE name = ?"
)

LAST_POSITION = "SELECT coalesce(max(position), 0) FROM events"
LAST_POSITION_OF_STREAMS = "SELECT coalesce(max(last_position), 0) FROM streams"
LAST_OF_TYPES = "SELECT name, (SELECT max(position) FROM typed WHERE type = types.id) FROM types"

# What follows from the events themselves is written for thousands of them at once: with each commit, it would
# be more pages than the events are.
UNPLACED = "FROM events WHERE position > (SELECT position FROM placed)"
ENDS = f"(SELECT stream, max(seq) AS seq, position, chain {UNPLACED} AND chain IS NOT NULL GROUP BY stream)"
UPDATE_ENDS = "UPDATE streams SET last_seq = ends.seq, last_position = ends.position, chain = ends.chain"
PLACE = (
    f"INSERT OR IGNORE INTO places SELECT stream, seq, position {UNPLACED} ORDER BY stream, seq",
    f"INSERT OR IGNORE INTO typed SELECT type, position {UNPLACED} ORDER BY type, position",
    f"{UPDATE_ENDS} FROM {ENDS} AS ends WHERE streams.id = ends.stream",
    "UPDATE placed SET position = max(position, (SELECT coalesce(max(position), 0) FROM events))",
)

Row = tuple[int, int, int, int, int, bytes, bytes | None]


class Head(Struct, frozen=True, gc=False):
    """Where a stream ends. ``stream`` is its number in the file, ``label`` what its checksums name it by."""

    stream: int
    label: int
    seq: int
    chain: bytes


class Append(Struct, frozen=True, gc=False):
    """An append that is to be stored; ``size`` is its bytes of data."""

    stream: str
    events: Sequence[NewEvent]
    expected_seq: int
    size: int


class Staged(Struct, frozen=True):
    """What to answer to an append once its transaction is over, and what it stored."""

    answer: Appended | LogError
    events: Sequence[Recorded]


class Store:
    """The write connection. After any error: close it and open another, which rolls back and settles.

    ``position`` is that of the last event; ``last_of`` of the last of each type, as it was opened.
    """

    def __init__(self, path: Path, *, create: bool, journal: Literal["WAL", "OFF"] = "WAL") -> None:
        """Open the file and settle it. Raises sqlite3.Error, OSError, LogUnavailable.

        ``journal`` OFF is for a file that is thrown away unless it is finished (copy.py): nothing is
        flushed, nothing can be rolled back, and no other file appears beside it.
        """
        signed = check(path) if create else []
        if create:
            _create(path)
        if journal == "WAL":
            write_afresh(path)  # first: whichever connection is the last to close may copy what the WAL shows
        self._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_S,
            cached_statements=STATEMENTS_KEPT,
            check_same_thread=False,  # opened by the caller's thread, used by the writer's
        )
        self._path = path
        self._last: sqlite3.Connection | None = None
        try:
            _set_journal(self._db, journal)
            if journal == "WAL":
                self._last = last_to_close(path)
            self._db.execute(f"PRAGMA synchronous = {'FULL' if journal == 'WAL' else 'OFF'}")
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
            self._db.execute("PRAGMA temp_store = MEMORY")  # of no file elsewhere, whose disk may be full
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
            _migrate(self._db)
            flush_names(path)  # before any of the WAL is copied: without its name, half of a copy is damage
            if create and journal == "WAL":
                self._settle_signed(signed)
            else:
                self.settle()
            self._load()
            self.files = Files.of(path)
        except BaseException:
            self.give_up()
            raise

    def settle(self) -> None:
        """Make what the file shows certain: nothing of it can be lost, nothing else can reappear.

        A commit that failed may have left frames in the WAL that only a recovery would see, and frames
        that a failed fsync has dropped from the disk alone. Whatever is visible is written afresh, there and,
        by the checkpoint, into the file; the commit after it gives the WAL a new salt, which ends whatever
        is not.
        """
        write_afresh(self._path)
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise LogUnavailable("another process reads the log's file")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        self._db.execute(f"PRAGMA user_version = {version}")
        if self._last is not None:
            lengthen(self._path, WAL_BYTES)

    def _settle_signed(self, before: Sequence[int]) -> None:
        signature = new_signature()
        record(self._path, *before, signature)
        self._db.execute(f"PRAGMA user_version = {signature}")
        self.settle()
        record(self._path, signature)  # what the file now shows for certain

    # One transaction: stage, then commit

    def stage(self, appends: Sequence[Append]) -> list[Staged]:
        """Make ready what ``commit`` will store: every append whose expected seq holds."""
        events: list[Row] = []
        new_streams: list[tuple[int, str, int, int, bytes]] = []
        staged = []
        size = 0
        for append in appends:
            stream = append.stream
            try:
                head = self._head(stream)
            except Damaged as damaged:
                staged.append(Staged(damaged, ()))
                continue
            if head.seq != append.expected_seq:
                staged.append(Staged(WrongExpectedSeq(stream, append.expected_seq, head.seq), ()))
                continue
            recorded = self._rows(stream, head, append.events, events)
            last = recorded[-1]
            self._heads[stream] = Head(head.stream, head.label, last.seq, last.chain)
            if head.seq < 0:
                new_streams.append((head.stream, stream, last.seq, last.position, last.chain))
            size += append.size
            staged.append(Staged(Appended(last.seq, last.position, last.chain), recorded))
        self._events, self._new_streams, self.staged_bytes = events, new_streams, size
        return staged

    def commit(self) -> None:
        """Make what is staged durable: by one statement if that is enough, as each waits for the GIL."""
        events = self._events
        alone = not (self._new_streams or self._new_types) and len(events) <= ROWS_EXACT
        if not alone:
            self._db.execute("BEGIN IMMEDIATE")
        self._insert("INSERT INTO types VALUES ", self._new_types)
        self._insert("INSERT INTO streams VALUES ", self._new_streams)
        self._insert("INSERT INTO events VALUES ", events)
        self._new_types.clear()
        self._unplaced += len(events)
        self._unplaced_bytes += self.staged_bytes
        if not alone:
            self._db.execute("COMMIT")

    def place(self) -> None:
        """Give the indexes what they lack, if that is much; between two commits, as no answer needs it."""
        many_heads = len(self._heads) > HEADS_MAX
        if many_heads or self._unplaced > UNPLACED_MAX or self._unplaced_bytes > UNPLACED_BYTES_MAX:
            self._place()
        if many_heads:
            while len(self._heads) > HEADS_KEPT:
                self._heads.popitem(last=False)

    def holds(self, events: Sequence[Recorded]) -> bool:
        """Say whether exactly these events of one append are stored: the chain's head covers every byte."""
        last = events[-1]
        query = "SELECT chain FROM events WHERE position = ?"
        return bool(self._db.execute(query, (last.position,)).fetchone() == (last.chain,))

    def checkpoint(self) -> None:
        """Move what the WAL holds into the file, as far as no reader stands in the way.

        Each stream's row knows its end there: should the file lose its last page, that is noticed.
        """
        self._place_any()
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def retire(self) -> None:
        """Leave as much in the file, and as little in the WAL, as can be: its names lead elsewhere now."""
        self._place_any()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Release the file; the last connection to close empties the WAL."""
        try:
            self._place_any()
        except sqlite3.Error:
            self.give_up()
            return
        if self._last is not None:
            self._last.close()
        self._db.close()

    def give_up(self) -> None:
        """Release the file after an error, and leave the WAL as it is: it may not be what it seems."""
        try:
            self._db.close()
        finally:
            if self._last is not None:
                self._last.close()

    def _load(self) -> None:
        self._place_any()
        self._heads: OrderedDict[str, Head] = OrderedDict()
        types = self._db.execute("SELECT id, name FROM types").fetchall()
        self._types = {name: (number, label(name)) for number, name in types}
        # Where damage has taken the log's end, its streams still know of it: then what is missing is missed.
        placed = self._one("SELECT position FROM placed")
        self.position: int = max(self._one(LAST_POSITION), self._one(LAST_POSITION_OF_STREAMS), placed)
        self._streams: int = self._one("SELECT coalesce(max(id), 0) FROM streams")
        self._unplaced = self._unplaced_bytes = 0
        self._new_types: list[tuple[int, str]] = []  # for the next commit
        self.last_of = {name: position or 0 for name, position in self._db.execute(LAST_OF_TYPES).fetchall()}

    def _place_any(self) -> None:
        if self._one(f"SELECT count(*) {UNPLACED}"):
            self._place()

    def _place(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for statement in PLACE:
            self._db.execute(statement)
        self._db.execute("COMMIT")
        self._unplaced = self._unplaced_bytes = 0

    def _insert(self, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
        # executemany gives up the GIL for each row; beside a busy loop it waits 0.5 ms to have it back.
        done = 0
        while done < len(rows):
            left = len(rows) - done
            count = left if left <= ROWS_EXACT else min(left // ROWS_STEP * ROWS_STEP, ROWS_MAX)
            values = chain.from_iterable(rows[done : done + count])
            self._db.execute(_insertion(into, len(rows[0]), count), tuple(values))
            done += count

    def _rows(self, stream: str, head: Head, events: Sequence[NewEvent], rows: list[Row]) -> list[Recorded]:
        number, name, seq, link = head.stream, head.label, head.seq, head.chain
        last = seq + len(events)
        recorded = []
        for event in events:
            seq += 1
            self.position += 1
            crc = crc32(event.data)
            link = chain_next(link, event.data)
            type_, type_label = self._types.get(event.type) or self._add_type(event.type)
            kept = link if seq == last else None
            checksum = row_checksum(self.position, name, seq, type_label, crc, kept)
            rows.append((self.position, number, seq, type_, checksum, event.data, kept))
            recorded.append(Recorded(stream, seq, self.position, event.type, event.data, crc, kept or b""))
        return recorded

    def _head(self, stream: str) -> Head:
        head = self._heads.get(stream)
        if head is not None:
            self._heads.move_to_end(stream)
            return head
        row = self._db.execute(HEAD, (stream,)).fetchone()
        if row is None:
            self._streams += 1
            head = Head(self._streams, label(stream), -1, chain_seed(stream))
        else:
            head = Head(row[0], label(stream), row[1], row[2])
            if row[3] != head.chain:
                raise Damaged(stream, head.seq)
        self._heads[stream] = head
        return head

    def _add_type(self, name: str) -> tuple[int, int]:
        added = self._types[name] = len(self._types) + 1, label(name)
        self._new_types.append((added[0], name))
        return added

    def _one(self, query: str) -> int:
        (value,) = self._db.execute(query).fetchone()
        return int(value)


@cache
def _insertion(into: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return into + ", ".join([row] * rows)


def opened(path: Path) -> Store:
    """Return the store at ``path``, created if need be. Raises LogUnavailable."""
    try:
        return Store(path, create=True)
    except (OSError, sqlite3.Error) as error:
        raise LogUnavailable(f"{path}: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # rows that are no such rows
        raise LogUnavailable(f"{path}: it is damaged ({error})") from error


def _create(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _set_journal(db: sqlite3.Connection, journal: str) -> None:
    # The row says what came of it, and reading it raises what went wrong: without, it would stay as it was.
    (mode,) = db.execute(f"PRAGMA journal_mode = {journal}").fetchone()
    if mode != journal.lower():
        raise LogUnavailable(f"its journal is {mode} and cannot be made {journal}")


def _migrate(connection: sqlite3.Connection) -> None:
    db = Database(connection)
    known = {step.name for step in migrations.pending(Database(memory=True))}
    newer = {step.name for step in migrations.applied(db)} - known
    if newer:
        raise LogUnavailable(f"the log was written by a newer version ({', '.join(sorted(newer))})")
    migrations.apply(db)
