"""The lock that keeps a second service off a database: the kernel drops it when the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import LogError


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

    The file stays: removing it would let two processes lock two files of one name.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).strip()
            raise LogInUse(path, int(pid) if pid.isdigit() else None) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Keep services off a log that is only read, if one has ever served it. Raises LogInUse, OSError."""
    if Path(f"{path}.lock").exists():
        with hold(path):
            yield
    else:
        yield
