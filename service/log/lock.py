"""The lock that keeps a second service off a database: the kernel drops it when the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import LogError
from service.log.files import RECORD_AT

NOBODY = b" " * (RECORD_AT - 1) + b"\n"


class LogInUse(LogError):
    """Another process serves this database; ``pid`` is None when it did not say."""

    def __init__(self, path: Path, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{path} is in use by {who}")
        self.path = path
        self.pid = pid


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold ``<path>.lock`` for as long as the context lasts. Raises LogInUse, OSError.

    The file stays: removing it would let two processes lock two files of one name. Its first line is the
    holder's, what follows is that of files.py. A link leads to the lock of what it leads to.
    """
    lock = os.open(f"{os.path.realpath(path)}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, RECORD_AT).strip()
            raise LogInUse(path, int(pid) if pid.isdigit() else None) from None
        os.pwrite(lock, str(os.getpid()).encode().ljust(RECORD_AT - 1) + b"\n", 0)
        yield
        os.pwrite(lock, NOBODY, 0)
    finally:
        os.close(lock)


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Keep services off a log that is only read, if one has ever served it. Raises LogInUse, OSError."""
    if Path(f"{os.path.realpath(path)}.lock").exists():
        with hold(path):
            yield
    else:
        yield
