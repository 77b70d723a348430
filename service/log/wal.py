"""What SQLite takes for granted of its write-ahead log after a flush has failed, made true.

After a failed fsync the kernel may forget what it could not write, show it all the same, and let the next
fsync succeed (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). No process
can tell later whether one has failed.
"""

import os
import sqlite3
from pathlib import Path

from service.errors import LogUnavailable

_PIECE_BYTES = 256 * 1024


def write_afresh(path: Path) -> None:
    """Write all that the WAL of the database at ``path`` shows again, and flush it. Raises OSError.

    What is copied from it into the database can then be copied again after a power loss. Nobody may append
    to it meanwhile; its readers find the same bytes.
    """
    try:
        wal = os.open(f"{path}-wal", os.O_RDWR)
    except FileNotFoundError:
        return
    try:  # SQLite's locks are on the other two files: to close this one takes none of them away
        at = 0
        while piece := os.pread(wal, _PIECE_BYTES, at):
            at += os.pwrite(wal, piece, at)
        os.fdatasync(wal)
    finally:
        os.close(wal)


def flush_names(path: Path) -> None:
    """Make the name of the WAL certain: SQLite flushes its directory once, and does not heed when that fails.

    Raises LogUnavailable.
    """
    directory = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    except OSError as error:
        raise LogUnavailable(f"the log's directory cannot be flushed: {error.strerror}") from error
    finally:
        os.close(directory)


def last_to_close(path: Path) -> sqlite3.Connection:
    """Return a connection that leaves the WAL as it is when it is the last to close.

    Any that may write would copy it into the database.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection
