"""The segments file, where each segment lies in the frames file, and how the two begin.

Disposable: a file that is damaged, or of another version, is dropped and filled again from the log.
"""

import os
import sqlite3
from pathlib import Path

from msgspec import Struct
from sqlite_utils import Database

from migrations.segments import segments as migrations
from service.log import Recorded
from service.segments.frames_file import FramesFile
from service.segments.index import Place
from service.segments.segment import Segment

VERSION = 2  # raised with every change of what the tables hold: older files are then dropped

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
    "insert into segments (stream, first_seq, last_seq, at, size, crc) values"
    " ((select id from streams where name = ?), ?, ?, ?, ?, ?)"
    " on conflict (stream, first_seq) do update"
    " set last_seq = excluded.last_seq, at = excluded.at, size = excluded.size, crc = excluded.crc"
)
MARK = (
    "insert into marks (name, position, stream, seq, crc) values (?, ?, ?, ?, ?)"
    " on conflict (name) do update set position = excluded.position, stream = excluded.stream,"
    " seq = excluded.seq, crc = excluded.crc where excluded.position > marks.position"
)
PLACES = (
    "select first_seq, last_seq, at, size, segments.crc from segments join streams on id = stream"
    " where name = ? order by first_seq"
)
REMOVE = "delete from segments where stream = (select id from streams where name = ?) and first_seq = ?"


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
    """The open file. Every method may raise one of FAILURES, or OSError.

    ``store``, ``remember`` and ``remove`` belong to one thread, ``load`` to another, the rest to the loop's.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, frames: FramesFile) -> None:
        self._path = path
        self._writer = writer
        self._frames = frames
        uri = f"{path.absolute().as_uri()}?mode=ro"
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
        frames = None
        try:
            (version,) = writer.execute("pragma user_version").fetchone()
            fresh = writer.execute("select count(*) from sqlite_master").fetchone()[0] == 0
            if version != VERSION and not fresh:
                writer.close()
                return None
            writer.execute("pragma journal_mode = wal")
            # A lost tail of the file is sealed again: no flush per commit.
            writer.execute("pragma synchronous = normal")
            migrations.apply(Database(writer))
            frames = _made(path, writer) if fresh else _found(path, writer)
            if frames is None:
                writer.close()
                return None
            writer.execute(f"pragma user_version = {VERSION}")
            found = cls(path, writer, frames)
        except BaseException:
            if frames is not None:
                frames.close()
            writer.close()
            raise
        return found

    # The writing thread's

    def store(self, stream: str, segment: Segment, sealed: Mark) -> Place:
        """Store a segment and the mark of its last event, both or neither, and return its place."""
        data = segment.data
        at = self._frames.append(data)
        place = Place(segment.first_seq, segment.last_seq, at, len(data), segment.checksum(stream))
        self._writer.execute("begin immediate")
        try:
            self._writer.execute("insert or ignore into streams (name) values (?)", (stream,))
            self._writer.execute(STORE, (stream, *place))
            self._mark("sealed", sealed)
            self._writer.execute("commit")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            raise
        return place

    def remember(self, ended: Mark) -> None:
        """Remember that every run that ended up to here needs no more sealing."""
        self._mark("ended", ended)

    def remove(self, stream: str, place: Place) -> None:
        """Forget a segment; its bytes stay behind, for damage is rare."""
        self._writer.execute(REMOVE, (stream, place.first_seq))

    def _mark(self, name: str, mark: Mark) -> None:
        self._writer.execute(MARK, (name, mark.position, mark.stream, mark.seq, mark.crc))

    # The reading thread's

    def load(self, stream: str, place: Place) -> Segment | None:
        """Return a segment, None if it is no longer what was stored; may wait for the disk."""
        return _segment(stream, place, self._frames.read(place.at, place.size))

    # The loop's: each takes some twenty microseconds, less than the way to another thread and back

    def load_now(self, stream: str, place: Place) -> Segment | None:
        """Return a segment if that does not wait for the disk; None also if it is not what was stored."""
        data = self._frames.read_now(place.at, place.size)
        return None if data is None else _segment(stream, place, data)

    def places(self, stream: str) -> list[Place]:
        """Return the sealed stretches of ``stream``, in order."""
        rows = self._looking.execute(PLACES, (stream,)).fetchall()
        if not all(isinstance(value, int) and value >= 0 for row in rows for value in row):
            raise sqlite3.DatabaseError("the index of segments is damaged")
        return [Place(*row) for row in rows]

    def marks(self) -> Marks:
        """Return what the file was made from."""
        query = "select name, position, stream, seq, crc from marks"
        found = {name: Mark(*rest) for name, *rest in self._looking.execute(query).fetchall()}
        return Marks(found.get("sealed", Mark()), found.get("ended", Mark()))

    def is_there(self) -> bool:
        """Tell whether the path still leads to this file, and its companion's to the frames."""
        try:
            return self._path.stat().st_ino == self._inode and self._frames.is_there()
        except OSError:
            return False

    # The end: nothing else may be going on

    def close(self) -> None:
        """Release the file; the writer, closed last, leaves a single one and the frames."""
        self._looking.close()
        self._writer.close()
        self._frames.close()


def frames_path(path: Path) -> Path:
    """Return where the frames of the segments file at ``path`` are."""
    return path.with_name(f"{path.name}.frames")


def drop(path: Path) -> None:
    """Remove the segments file and its companions."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    frames_path(path).unlink(missing_ok=True)


def is_damage(error: Exception) -> bool:
    """Tell whether only a new file can help against ``error``."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in PASSING


def _made(path: Path, writer: sqlite3.Connection) -> FramesFile:
    frames = FramesFile.make(frames_path(path))
    writer.execute("insert into frames values (?)", (frames.name,))
    return frames


def _found(path: Path, writer: sqlite3.Connection) -> FramesFile | None:
    row = writer.execute("select name, (select max(at + size) from segments) from frames").fetchone()
    if row is None or not isinstance(row[0], bytes):
        return None
    return FramesFile.open(frames_path(path), row[0], row[1] or 0)


def _segment(stream: str, place: Place, data: bytes | memoryview) -> Segment | None:
    return Segment.stored(stream, place.first_seq, place.last_seq, data, place.crc)
