"""The views file: one connection that writes (in one thread), one that reads, and how both begin.

Disposable: a file that is damaged, or of another version, is dropped and filled again from the log.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import astuple
from sqlite_utils import Database

from migrations import views as migrations
from service.log import Recorded
from service.projection.runs import RunFold
from service.projection.workflows import WorkflowFold

VERSION = 2  # raised with every change of what the tables hold: older files are then dropped
# Views made from nothing touch the same pages again and again: together these double the speed of that.
CACHE_KIB = 32 * 1024
WAL_PAGES = 1_000  # of 4 KiB, then they are moved into the file; the WAL keeps that space to itself
DAMAGE = (
    sqlite3.DatabaseError,
    UnicodeDecodeError,
)  # the latter: damaged text, even in a message of SQLite's
EVENT_TYPES = RunFold.TYPES | WorkflowFold.TYPES

diagnostics = structlog.get_logger("tailrace.projection")


class Checkpoint(Struct, frozen=True):
    """The last event applied: enough to find it in the log again, and to see that it is the same one."""

    position: int = 0
    stream: str = ""
    seq: int = -1
    crc: int = 0

    @classmethod
    def at(cls, event: Recorded) -> "Checkpoint":
        """Return the checkpoint of views that end with ``event``."""
        return cls(event.position, event.stream, event.seq, event.crc)


class Views:
    """The open views file. ``apply`` belongs to one thread, ``reading`` to another one (or the same)."""

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.path = path
        self._writer = writer
        self._reader = reader

    @classmethod
    def open(cls, path: Path) -> "Views":
        """Return the views in ``path``, empty ones if the file is damaged or of another version.

        Raises sqlite3.Error or OSError when no usable file can be had there.
        """
        try:
            views = cls._connect(path)
            if views is not None:
                return views
        except DAMAGE:
            pass
        drop(path)
        fresh = cls._connect(path)
        assert fresh is not None
        return fresh

    @classmethod
    def _connect(cls, path: Path) -> "Views | None":
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds what runs hold
        writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            version = writer.execute("pragma user_version").fetchone()[0]
            fresh = writer.execute("select count(*) from sqlite_master").fetchone()[0] == 0
            if version != VERSION and not fresh:
                writer.close()
                return None
            writer.execute("pragma journal_mode = wal")
            # A lost tail of the views is read again from the log: no flush per commit.
            writer.execute("pragma synchronous = normal")
            writer.execute(f"pragma cache_size = -{CACHE_KIB}")
            writer.execute(f"pragma wal_autocheckpoint = {WAL_PAGES}")
            migrations.views.apply(Database(writer))
            writer.execute(f"pragma user_version = {VERSION}")
            reader = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        except BaseException:
            writer.close()
            raise
        views = cls(path, writer, reader)
        try:
            views.checkpoint()
        except BaseException:
            views.close()
            raise
        return views

    def apply(self, page: Sequence[Recorded]) -> None:
        """Fold a page of events, in log order, into the tables: all of it with its checkpoint, or nothing."""
        runs, workflows = RunFold(), WorkflowFold()
        for event in page:
            try:
                (runs if event.type in RunFold.TYPES else workflows).add(event)
            except msgspec.MsgspecError as error:
                diagnostics.error(
                    "event not understood", stream=event.stream, seq=event.seq, reason=str(error)
                )
        with self._transaction() as db:
            runs.write(db)
            workflows.write(db)
            db.execute(
                "insert or replace into checkpoint (id, position, stream, seq, crc) values (1, ?, ?, ?, ?)",
                astuple(Checkpoint.at(page[-1])),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("begin immediate")
        try:
            yield self._writer
            self._writer.execute("commit")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the reading connection, with every statement inside seeing one and the same moment."""
        self._reader.execute("begin")
        try:
            yield self._reader
        finally:
            if self._reader.in_transaction:
                self._reader.execute("rollback")

    def checkpoint(self) -> Checkpoint:
        """Return the last event applied."""
        with self.reading() as db:
            return checkpoint_of(db)

    def give_space(self) -> bool:
        """Empty the WAL, some 4 MB, for those who need the disk more; return whether that was possible."""
        try:
            busy, _, _ = self._writer.execute("pragma wal_checkpoint(truncate)").fetchone()
        except sqlite3.OperationalError:  # the file itself has to grow for it
            return False
        return not busy

    def replaced(self) -> "Views":
        """Close and drop this file, and return empty views in its place."""
        self.close()
        drop(self.path)
        return self.open(self.path)

    def close(self) -> None:
        """Close both connections; the last one to close leaves a single file."""
        self._reader.close()
        self._writer.close()


def checkpoint_of(db: sqlite3.Connection) -> Checkpoint:
    """Return the checkpoint that belongs to what ``db`` reads."""
    row = db.execute("select position, stream, seq, crc from checkpoint").fetchone()
    if row is None:
        return Checkpoint()
    if [type(value) for value in row] != [int, str, int, int]:
        raise sqlite3.DatabaseError("the checkpoint is damaged")  # SQLite keeps whatever a column holds
    return Checkpoint(*row)


def drop(path: Path) -> None:
    """Remove the views file and its companions."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
