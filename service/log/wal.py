"""What SQLite takes for granted of its write-ahead log after a flush has failed, made true; and its length.

After a failed fsync the kernel may forget what it could not write, show it all the same, and let the next
fsync succeed (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). No process
can tell later whether one has failed.
"""

import errno
import os
import sqlite3
from pathlib import Path

from service.errors import LogUnavailable

_PIECE_BYTES = 256 * 1024
_PLENTY = 32  # as many times what is to be filled has to be free on the disk
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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


def lengthen(path: Path, size: int) -> None:
    """Fill the WAL with zeros, behind what it holds, up to ``size`` bytes, unless the disk is short of space.

    A commit that makes its file longer waits for new blocks and the new length as well: half as long again
    as one that overwrites. What is there is not touched, and zeros are no frame to SQLite. Nobody may append
    meanwhile. Raises OSError, but not where the owner or the process may have no more.
    """
    wal = os.open(f"{path}-wal", os.O_RDWR)
    try:
        disk = os.fstatvfs(wal)
        if disk.f_bavail * disk.f_frsize < _PLENTY * size:
            return
        before = at = os.fstat(wal).st_size
        try:
            while at < size:
                at += os.pwrite(wal, bytes(size - at), at)
            os.fdatasync(wal)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            os.ftruncate(wal, before)
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
