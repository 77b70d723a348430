"""The frames of all segments, one behind the other in a plain file that only grows.

A plain file, because the kernel says of one whether reading it would wait for the disk (RWF_NOWAIT), and a
blob of SQLite takes five times as long. Who reads checks what he gets: nothing here is flushed.
"""

import os
import secrets
from collections import deque
from pathlib import Path

NAME_BYTES = 16  # at its beginning, so that it is not taken for another
NOW_BYTES_MAX = 512 * 1024  # read without another thread
ROOM_BYTES = 264 * 1024  # handed on without a copy; only segments of a single event are larger
SMALL_BYTES = 64 * 1024  # copied, as one that is kept would keep a whole room
ROOMS = 12  # a few more than the cache has segments


class FramesFile:
    """The open file. ``append`` belongs to one thread, ``read_now`` to another; all may raise OSError."""

    def __init__(self, path: Path, descriptor: int, name: bytes, end: int) -> None:
        self.name = name
        self._path = path
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino
        self._end = end
        # Touched here: memory that nobody has touched yet takes ten times as long to read into.
        self._rooms = deque(bytearray(b"\0") * ROOM_BYTES for _ in range(ROOMS))
        self._spare = bytearray(b"\0") * NOW_BYTES_MAX

    @classmethod
    def make(cls, path: Path) -> "FramesFile":
        """Return a new file at ``path``, in the place of any other."""
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        name = secrets.token_bytes(NAME_BYTES)
        made = cls(path, descriptor, name, 0)
        try:
            made.append(name)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def open(cls, path: Path, name: bytes, end: int) -> "FramesFile | None":
        """Return the file of that name, cut off at ``end``; None if there is another at ``path``, or none."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.pread(descriptor, NAME_BYTES, 0) == name:
                end = max(end, NAME_BYTES)
                os.ftruncate(descriptor, end)
                return cls(path, descriptor, name, end)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def append(self, data: bytes | memoryview) -> int:
        """Write ``data`` behind everything else and return where it begins; all of it, or nothing counts."""
        at = self._end
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, memoryview(data)[done:], at + done)
        self._end = at + done
        return at

    def read_now(self, at: int, size: int) -> bytes | memoryview | None:
        """Return ``size`` bytes if they are in memory, else None: it does not wait for the disk.

        They stay what they are for as long as anybody refers to them.
        """
        if size > NOW_BYTES_MAX:
            return None
        room = self._room() if SMALL_BYTES < size <= ROOM_BYTES else None
        view = memoryview(self._spare if room is None else room)[:size]
        try:
            count = os.preadv(self._descriptor, [view], at, os.RWF_NOWAIT)
        except OSError:  # not there, or a file system that cannot tell
            return None
        if count != size:
            return None
        return bytes(view) if room is None else view.toreadonly()

    def _room(self) -> bytearray | None:
        """Return memory to read into that nobody refers to; None if all of it is in use."""
        for _ in range(ROOMS):
            self._rooms.rotate(-1)  # the one lent longest ago is the likeliest to be free
            if _is_free(self._rooms[-1]):
                return self._rooms[-1]
        return None

    def read(self, at: int, size: int) -> bytes:
        """Return ``size`` bytes, less if the file ends before."""
        return os.pread(self._descriptor, size if at + size <= self._end else 0, at)

    def is_there(self) -> bool:
        """Tell whether the path still leads to this file."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)


def _is_free(room: bytearray) -> bool:
    """Tell whether nobody has a view of ``room``: else a bytearray refuses to change its size."""
    try:
        room.append(room.pop())
    except BufferError:
        return False
    return True
