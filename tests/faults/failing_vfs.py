"""SQLite's own way to the disk, made to fail: the k-th operation on files, once or from then on.

A VFS over the one that SQLite uses; it sees every write, flush and truncation of a file, its making and its
removal. To open a file that is there takes nothing from the disk.
"""

import ctypes
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast, string_at
from pathlib import Path
from typing import Any

ERRORS = {
    "EIO": {"write": 778, "sync": 1034, "truncate": 1546, "open": 14, "delete": 2570},
    "ENOSPC": {"write": 13, "sync": 1034, "truncate": 1546, "open": 14, "delete": 2570},
}  # what SQLite's unix VFS makes of them

Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
WriteTo = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
TruncateTo = CFUNCTYPE(c_int, c_void_p, c_int64)
SyncOf = CFUNCTYPE(c_int, c_void_p, c_int)


_kept: list[
    "FailingVfs"
] = []  # for good: a connection that nobody has closed would call what is no longer there


class Vfs(Structure):
    """sqlite3_vfs."""

    _fields_ = [
        ("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int), ("pNext", c_void_p),
        ("zName", c_char_p), ("pAppData", c_void_p), ("xOpen", Open), ("xDelete", Delete),
        *((f"rest{n}", c_void_p) for n in range(14)),
    ]  # fmt: skip


class Methods(Structure):
    """sqlite3_io_methods."""

    _fields_ = [
        ("iVersion", c_int), ("xClose", c_void_p), ("xRead", c_void_p), ("xWrite", WriteTo),
        ("xTruncate", TruncateTo), ("xSync", SyncOf), *((f"rest{n}", c_void_p) for n in range(13)),
    ]  # fmt: skip


class FailingVfs:
    """``count`` operations so far; ``fail`` says which are to fail. Writes that fail may have got somewhere."""

    def __init__(self, library: Any) -> None:
        self.count = 0
        self.before_healing = 0
        self.failed: list[str] = []
        self.errors = ERRORS["EIO"]
        self._due: Callable[[int], bool] = lambda _: False
        self._chance = random.Random(0)
        self._patched: dict[int, Methods] = {}
        library.sqlite3_vfs_find.restype = POINTER(Vfs)
        self._original = library.sqlite3_vfs_find(None)
        self.vfs = Vfs.from_buffer_copy(string_at(self._original, ctypes.sizeof(Vfs)))
        self.vfs.zName = b"failing"
        self.vfs.xOpen = Open(self._open)
        self.vfs.xDelete = Delete(self._delete)

    def fail(self, k: int, *, lasting: int, error: str, seed: int = 0) -> None:
        """Fail ``lasting`` operations from ``k`` on (the first is 1)."""
        self.count = self.before_healing = 0
        self.failed = []
        self.errors = ERRORS[error]
        self._chance = random.Random(seed)
        self._due = lambda n: k <= n < k + lasting

    def heal(self) -> None:
        """Fail no more; ``before_healing`` operations could have failed."""
        self.before_healing = self.before_healing or self.count
        self._due = lambda _: False

    def _fails(self, kind: str) -> bool:
        self.count += 1
        if not self._due(self.count):
            return False
        self.failed.append(kind)
        return True

    def _open(self, _: int, name: int, file: int, flags: int, out: int) -> int:
        if not (name and Path(string_at(name).decode()).exists()) and self._fails("open"):
            cast(file, POINTER(c_void_p))[0] = None
            return self.errors["open"]
        code = self._original.contents.xOpen(cast(self._original, c_void_p), name, file, flags, out)
        if code == sqlite3.SQLITE_OK:
            place = cast(file, POINTER(c_void_p))
            place[0] = ctypes.addressof(self._methods(place[0]))
        return code

    def _delete(self, _: int, name: bytes, flush: int) -> int:
        if self._fails("delete"):
            return self.errors["delete"]
        return self._original.contents.xDelete(cast(self._original, c_void_p), name, flush)

    def _methods(self, address: int) -> Methods:
        patched = self._patched.get(address)
        if patched is None:
            original = cast(address, POINTER(Methods)).contents
            patched = self._patched[address] = Methods.from_buffer_copy(
                string_at(address, ctypes.sizeof(Methods))
            )
            patched.xWrite = WriteTo(lambda *given: self._write(original, *given))
            patched.xTruncate = TruncateTo(lambda *given: self._call("truncate", original.xTruncate, *given))
            patched.xSync = SyncOf(lambda *given: self._call("sync", original.xSync, *given))
        return patched

    def _write(self, original: Methods, file: int, data: int, size: int, at: int) -> int:
        if not self._fails("write"):
            return original.xWrite(file, data, size, at)
        done = self._chance.choice((0, size // 2, self._chance.randint(0, size)))
        if done:
            original.xWrite(file, data, done, at)
        return self.errors["write"]

    def _call(self, kind: str, function: Callable[..., int], *given: int) -> int:
        return self.errors[kind] if self._fails(kind) else function(*given)


@contextmanager
def failing_vfs() -> Iterator[FailingVfs | None]:
    """Put it under every connection opened meanwhile; None if this Python's SQLite is out of reach."""
    try:
        library = ctypes.CDLL("libsqlite3.so.0")
        library.sqlite3_libversion.restype = c_char_p
        found = library.sqlite3_libversion().decode() == sqlite3.sqlite_version
    except OSError:
        found = False
    if not found:
        yield None
        return
    failing = FailingVfs(library)
    _kept.append(failing)
    original = failing._original
    library.sqlite3_vfs_register(ctypes.byref(failing.vfs), 1)
    try:
        sqlite3.connect(":memory:").close()
        yield failing
    finally:
        library.sqlite3_vfs_register(original, 1)
        library.sqlite3_vfs_unregister(ctypes.byref(failing.vfs))
