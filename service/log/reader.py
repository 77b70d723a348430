"""Pages out of the log's file, each row checked: a read-only connection, apart from the writer's.

For the loop's thread: a page of 500 rows takes about a millisecond, less than handing its rows over from
another thread.
"""

import sqlite3
import struct
from collections.abc import Collection
from functools import partial
from pathlib import Path

from isal.isal_zlib import crc32

from service.errors import Damaged, LogUnavailable
from service.log import Recorded
from service.log.checks import label, row_checksum
from service.log.files import Files

PAGE_BYTES_MAX = 1024 * 1024  # the event that passes it is the page's last
NAMES_MAX = 20_000  # streams whose number and name are kept in memory
UNNAMED = ("", -1)  # what a damaged number refers to; its label fits no checksum
FAILURES = (sqlite3.Error, UnicodeDecodeError)  # the latter: damage in a message of SQLite's
UNREADABLE_MAX = 1_000  # positions that one error passes over: 10 ms

PAGE = (
    "SELECT events.position, events.stream, events.seq, type, crc, data, chain FROM places"
    " JOIN events USING (position)"
    " WHERE places.stream = ? AND places.seq > ? AND places.position <= ? ORDER BY places.seq LIMIT ?"
)
PAGE_ALL = (
    "SELECT position, stream, seq, type, crc, data, chain FROM events"
    " WHERE position >= ? AND position <= ? ORDER BY position LIMIT ?"  # `>` would begin in the page before
)
IS_THERE = "SELECT 1 FROM events WHERE position >= ? LIMIT 1"  # or the page that should hold it raises
# The newest events are not in `places` and `typed` yet, and their streams' rows do not know of them
# (migrations/log.py): they are found by looking at each. Whoever has them in a tail asks for none of them.
UNPLACED = (
    "SELECT position, stream, seq, type, crc, data, chain FROM events"
    " WHERE position > ? AND position <= ? AND stream = ? AND seq > ? ORDER BY seq LIMIT ?"
)
ENDS = (
    "SELECT id, last_seq, last_position, (SELECT position FROM placed), events.seq IS NULL FROM streams"
    " LEFT JOIN events ON position = last_position AND stream = id AND seq = last_seq WHERE name = ?"
)
# The last event of a stream is at hand, without the look at each: whoever comes to a run asks for it.
LAST = "SELECT position, stream, seq, type, crc, data, chain FROM events WHERE position = ?"
# Where a stream's row does not lead to its last event, one of the two is damaged: what is there counts, too.
LAST_FOUND = (
    "SELECT max(coalesce((SELECT max(seq) FROM places WHERE stream = ?1), -1),"
    " coalesce((SELECT max(seq) FROM events WHERE position > ?2 AND stream = ?1), -1))"
)
TEXT = partial(str, encoding="utf-8", errors="replace")  # a damaged name: its label fits no checksum
Ends = tuple[int, int, int, int, int]  # number, last seq and position, `placed`, whether it is damaged
END_UNPLACED = (
    "SELECT seq, position FROM events WHERE position > ? AND position <= ? AND stream = ?"
    " ORDER BY position DESC LIMIT 1"
)
COUNT_HIDDEN = "SELECT count(*) FROM events WHERE position > ? AND position <= ? AND stream = ?"

# One bounded scan per type: `type IN (…) ORDER BY position` would sort everything that is left of the log.
OF_TYPE = (
    "SELECT * FROM (SELECT position FROM typed WHERE type = ? AND position > ? AND position <= ?"
    " ORDER BY position LIMIT ?)"
)
OF_TYPES_UNPLACED = (
    "SELECT * FROM (SELECT position FROM events WHERE type IN ({})"
    " AND position > max(?, (SELECT position FROM placed)) AND position <= ? ORDER BY position LIMIT ?)"
)
PAGE_OF_TYPES = (
    "SELECT position, stream, seq, type, crc, data, chain FROM events"
    " WHERE position IN ({}) ORDER BY position LIMIT ?"
)


class IndexDamaged(Exception):
    """What finds events by their type cannot be read, or does not lead to such events."""


def uri_of(path: Path, *, immutable: bool = False) -> str:
    """Return what SQLite opens to read ``path``; ``immutable``: nobody writes it, and it has no WAL."""
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"


class Reader:
    """Reads what lies at or before ``upto``: the position up to which the log is visible.

    With ``files`` it opens the log's own file, and none that has taken its name since.
    """

    def __init__(self, path: Path, *, files: Files | None = None, immutable: bool = False) -> None:
        self._path = path
        self._files = files
        self._uri = uri_of(path, immutable=immutable)
        self._db: sqlite3.Connection | None = None
        self._types: dict[int, tuple[str, int]] = {}  # each name with its label in the checksums
        self._names: dict[int, tuple[str, int]] = {}

    def page(self, stream: str, *, after: int, limit: int, upto: int) -> list[Recorded]:
        """Return a page of ``stream``. Raises Damaged, LogUnavailable."""
        after = max(after, -1)
        found: list[Recorded] = []
        try:
            ends = self._ends(stream, upto)
            if ends is not None and after < ends[1]:
                self._collect_stream(stream, ends, after=after, limit=limit, upto=upto, found=found)
        except FAILURES as error:
            if not _is_damage(error):
                raise self._failed(error) from error
            if not found:
                raise Damaged(stream, after + 1) from error
        return found

    def page_all(self, *, after: int, limit: int, types: Collection[str] | None, upto: int) -> list[Recorded]:
        """Return a page of the log, or of its events of ``types``.

        Raises Damaged, LogUnavailable, and with ``types`` IndexDamaged.
        """
        found: list[Recorded] = []
        try:
            if types is None:
                self._collect(PAGE_ALL, (after + 1, upto, limit), found)
            else:
                self._collect_types(types, after=after, limit=limit, upto=upto, found=found)
        except FAILURES as error:
            if not found:
                if not _is_damage(error) or not self._knows_types():
                    raise self._failed(error) from error
                if types is not None:
                    raise IndexDamaged from error
                raise Damaged(*UNNAMED, position=self._unreadable_to(after + 1, upto)) from error
        return found

    def last_seq(self, stream: str, *, upto: int) -> int:
        """Return the stream's last seq, -1 when it is unknown. Raises LogUnavailable."""
        try:
            ends = self._ends(stream, upto)
            return -1 if ends is None else self._last_seq(ends, upto)
        except FAILURES as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Release the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _ends(self, stream: str, upto: int) -> Ends | None:
        row: Ends | None = self._connection().execute(ENDS, (stream,)).fetchone()
        if row is None:
            return None
        number, last_seq, _, placed, damaged = row
        if damaged:
            found = self._connection().execute(LAST_FOUND, (number, placed)).fetchone()
            return number, max(last_seq, *found), upto, placed, damaged
        if placed < upto:
            newer = self._connection().execute(END_UNPLACED, (placed, upto, number)).fetchone()
            if newer is not None:
                return number, *newer, placed, damaged
        return row

    def _collect_stream(
        self,
        stream: str,
        ends: Ends,
        *,
        after: int,
        limit: int,
        upto: int,
        found: list[Recorded],
    ) -> None:
        number, last_seq, last_position, placed, damaged = ends
        if after == last_seq - 1 and last_position <= upto and not damaged:
            self._collect(LAST, (last_position,), found, stream=stream, after=after)
            return
        room = self._collect(PAGE, (number, after, upto, limit), found, stream=stream, after=after)
        if room and len(found) < limit and last_position > placed:
            rest = (placed, upto, number, after + len(found), limit - len(found))
            self._collect(UNPLACED, rest, found, stream=stream, after=after)
        if not found and after < self._last_seq(ends, upto):
            raise Damaged(stream, after + 1)  # its stream says that it is there

    def _collect_types(
        self, types: Collection[str], *, after: int, limit: int, upto: int, found: list[Recorded]
    ) -> None:
        kinds = self._kinds(types)
        unplaced = OF_TYPES_UNPLACED.format(", ".join("?" * len(kinds)))
        scans = " UNION ALL ".join([OF_TYPE] * len(kinds) + [unplaced])
        values = [value for kind in kinds for value in (kind, after, upto, limit)]
        values += [*kinds, after, upto, limit]
        self._collect(PAGE_OF_TYPES.format(scans), (*values, limit), found)
        if any(event.type not in types for event in found):
            raise IndexDamaged

    def _last_seq(self, ends: Ends, upto: int) -> int:
        number, last_seq, last_position, _, _ = ends
        if last_position <= upto:
            return last_seq
        (hidden,) = self._connection().execute(COUNT_HIDDEN, (upto, last_position, number)).fetchone()
        return last_seq - int(hidden)

    def _collect(
        self,
        query: str,
        values: tuple[int, ...],
        found: list[Recorded],
        *,
        stream: str | None = None,
        after: int = -1,
    ) -> bool:
        """Add the rows to ``found`` and say whether the page has room for more, in bytes."""
        room = PAGE_BYTES_MAX
        cursor = self._connection().execute(query, values)
        try:
            for position, number, seq, type_, checksum, data, chain in cursor:
                name, name_label = self._names.get(number) or self._name(number)
                kind, kind_label = self._types.get(type_) or self._type(type_)
                try:
                    crc = crc32(data)
                    whole = row_checksum(position, name_label, seq, kind_label, crc, chain) == checksum
                except (TypeError, struct.error):  # damage can turn a column into one of another type
                    crc, whole = 0, False
                expected = seq if stream is None else after + 1 + len(found)
                if not whole or seq != expected or name != (stream or name):
                    if not found:
                        raise Damaged(stream or name, expected, position=position)
                    return False
                found.append(Recorded(name, seq, position, kind, data, crc, chain or b""))
                room -= len(data)
                if room <= 0:
                    return False
            return True
        finally:
            cursor.close()  # an open cursor would hold up the checkpoint

    # Names and their numbers, which never change once they can be seen

    def _type(self, number: int) -> tuple[str, int]:
        self._load_types()
        return self._types.get(number, UNNAMED)

    def _kinds(self, types: Collection[str]) -> list[int]:
        if not set(types) <= {name for name, _ in self._types.values()}:
            self._load_types()
        return [number for number, (name, _) in self._types.items() if name in types]

    def _knows_types(self) -> bool:
        """Say whether events can be read at all, as far as their types go."""
        try:
            self._load_types()
        except FAILURES:
            return False
        return True

    def _load_types(self) -> None:
        types = self._connection().execute("SELECT id, name FROM types").fetchall()
        self._types = {number: (str(name), label(str(name))) for number, name in types}

    def _name(self, number: int) -> tuple[str, int]:
        query = "SELECT name FROM streams WHERE id = ?"
        try:
            row = self._connection().execute(query, (number,)).fetchone()
        except FAILURES as error:
            if not _is_damage(error):
                raise
            row = None  # of this stream, not of the others
        if row is None:
            return UNNAMED
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        named = self._names[number] = str(row[0]), label(str(row[0]))
        return named

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            if self._files is not None and (lost := self._files.lost(self._path)):
                raise LogUnavailable(lost)
            self._db = sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)
            self._db.text_factory = TEXT
        return self._db

    def _unreadable_to(self, position: int, upto: int) -> int:
        """Return the last position, from ``position`` on, that lies in the same damaged page of the file."""
        last = min(position + UNREADABLE_MAX - 1, upto)
        while position < last:
            try:
                self._connection().execute(IS_THERE, (position + 1,)).fetchone()
            except FAILURES as error:
                if not _is_damage(error):
                    break
                position += 1
            else:
                break
        return position

    def _failed(self, error: Exception) -> LogUnavailable:
        self.close()
        return LogUnavailable(str(error))


def _is_damage(error: Exception) -> bool:
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
