"""The segments file: three connections, each for one thread, and how they begin.

Disposable: a file that is damaged, or of another version, is dropped and filled again from the log.
"""

import os
import sqlite3
from pathlib import Path

from msgspec import Struct
from sqlite_utils import Database

from migrations.segments import segments as migrations
from service.log import Recorded
from service.segments.index import Place
from service.segments.segment import Segment

VERSION = 1  # raised with every change of what the tables hold: older files are then dropped
PAGE_BYTES = 64 * 1024  # a segment is a handful of them: read 3x as fast as from pages of 4 KiB
WAL_PAGES = 128  # then they are moved into the file

FAILURES = (sqlite3.Error, UnicodeDecodeError)  # the latter: damaged text, even in a message of SQLite's
# What a file can do that is not damaged: waiting helps, or somebody's attention. Any other failure is damage.
PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}

STORE = (
    "insert into segments (stream, first_seq, last_seq, crc, ends, frames) values"
    " ((select id from streams where name = ?), ?, ?, ?, ?, ?)"
    " on conflict (stream, first_seq, last_seq) do update"
    " set crc = excluded.crc, ends = excluded.ends, frames = excluded.frames returning id"
)
MARK = (
    "insert into marks (name, position, stream, seq, crc) values (?, ?, ?, ?, ?)"
    " on conflict (name) do update set position = excluded.position, stream = excluded.stream,"
    " seq = excluded.seq, crc = excluded.crc where excluded.position > marks.position"
)
PLACES = (
    "select first_seq, last_seq, segments.id from segments join streams on streams.id = segments.stream"
    " where streams.name = ? order by first_seq"
)


class Gone(sqlite3.DatabaseError):
    """Somebody has deleted the file: what is written to it is lost at the next start."""


class Mark(Struct, frozen=True):
    """An event that was in the log: enough to find it again, and to see that it is the same one."""

    position: int = 0
    stream: str = ""
    seq: int = -1
    crc: int = 0

    @classmethod
    def at(cls, event: Recorded) -> "Mark":
        """Return the mark of ``event``."""
        return cls(event.position, event.stream, event.seq, event.crc)


class Marks(Struct, frozen=True):
    """What the file was made from: the newest event sealed, the last run looked at as it ended."""

    sealed: Mark = Mark()
    ended: Mark = Mark()


class SegmentFile:
    """The open file. Every method may raise one of FAILURES.

    ``store``, ``remember`` and ``remove`` belong to one thread, ``load`` to another, the rest to the loop's.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self._path = path
        self._writer = writer
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._loading = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        self._looking = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        self._inode = path.stat().st_ino

    @classmethod
    def open(cls, path: Path) -> "SegmentFile":
        """Return the file at ``path``, an empty one if it is damaged or of another version.

        Raises sqlite3.Error, OSError or UnicodeDecodeError when no usable file can be had there.
        """
        try:
            found = cls._connect(path)
            if found is not None:
                return found
        except FAILURES as error:
            if not is_damage(error):
                raise
        drop(path)
        fresh = cls._connect(path)
        assert fresh is not None
        return fresh

    @classmethod
    def _connect(cls, path: Path) -> "SegmentFile | None":
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            (version,) = writer.execute("pragma user_version").fetchone()
            fresh = writer.execute("select count(*) from sqlite_master").fetchone()[0] == 0
            if version != VERSION and not fresh:
                writer.close()
                return None
            writer.execute(f"pragma page_size = {PAGE_BYTES}")
            writer.execute("pragma journal_mode = wal")
            # A lost tail of the file is sealed again: no flush per commit.
            writer.execute("pragma synchronous = normal")
            writer.execute(f"pragma wal_autocheckpoint = {WAL_PAGES}")
            migrations.apply(Database(writer))
            writer.execute(f"pragma user_version = {VERSION}")
            found = cls(path, writer)
        except BaseException:
            writer.close()
            raise
        return found

    # The writing thread's

    def store(self, stream: str, segment: Segment, sealed: Mark) -> Place:
        """Store a segment and the mark of its last event, both or neither, and return its place."""
        self._writer.execute("begin immediate")
        try:
            self._writer.execute("insert or ignore into streams (name) values (?)", (stream,))
            ((row,),) = self._writer.execute(
                STORE,
                (
                    stream,
                    segment.first_seq,
                    segment.last_seq,
                    segment.checksum(stream),
                    segment.table(),
                    segment.frames,
                ),
            ).fetchall()
            self._mark("sealed", sealed)
            self._writer.execute("commit")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            raise
        return Place(segment.first_seq, segment.last_seq, row)

    def remember(self, ended: Mark) -> None:
        """Remember that every run that ended up to here needs no more sealing."""
        self._mark("ended", ended)

    def remove(self, row: int) -> None:
        """Delete a segment."""
        self._writer.execute("delete from segments where id = ?", (row,))

    def _mark(self, name: str, mark: Mark) -> None:
        self._writer.execute(MARK, (name, mark.position, mark.stream, mark.seq, mark.crc))

    # The reading thread's

    def load(self, stream: str, place: Place) -> Segment | None:
        """Return a segment, None if it is gone or no longer what was stored."""
        query = "select crc, ends, frames from segments where id = ?"
        row = self._loading.execute(query, (place.row,)).fetchone()
        if row is None:
            return None
        try:
            segment = Segment.stored(stream, place.first_seq, row[1], row[2], row[0])
        except TypeError:  # damage can turn a column into one of another type
            return None
        return segment if segment is not None and segment.last_seq == place.last_seq else None

    # The loop's: each takes some twenty microseconds, less than the way to another thread and back

    def places(self, stream: str) -> list[Place]:
        """Return the sealed stretches of ``stream``, in order."""
        rows = self._looking.execute(PLACES, (stream,)).fetchall()
        if not all(isinstance(value, int) for row in rows for value in row):
            raise sqlite3.DatabaseError("the index of segments is damaged")
        return [Place(*row) for row in rows]

    def marks(self) -> Marks:
        """Return what the file was made from."""
        query = "select name, position, stream, seq, crc from marks"
        found = {name: Mark(*rest) for name, *rest in self._looking.execute(query).fetchall()}
        return Marks(found.get("sealed", Mark()), found.get("ended", Mark()))

    def is_there(self) -> bool:
        """Tell whether the path still leads to this file."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    # The end: nothing else may be going on

    def close(self) -> None:
        """Release the file; the writer, closed last, leaves a single one."""
        self._loading.close()
        self._looking.close()
        self._writer.close()


def drop(path: Path) -> None:
    """Remove the segments file and its companions."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_damage(error: Exception) -> bool:
    """Tell whether only a new file can help against ``error``."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in PASSING
