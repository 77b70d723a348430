"""The files of a log, and whether they still belong together.

SQLite takes what lies under a name: a WAL beside a file is played into it, be it that of another one, and a
file that was moved away is written on ("How To Corrupt An SQLite Database File", 1.4 and 4). So each start
signs the file, and keeps beside it what the WAL from then on belongs to.
"""

import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from service.errors import LogUnavailable

SIGNATURE_AT = 60  # in SQLite's header: `user_version`, big-endian, which it keeps for whoever uses the file
SIGNATURE_BITS = 31
RECORD_AT = 20  # in the lock's file, behind its first line, which is that of who holds it (lock.py)
RECORD = "{:08x} {:08x}\n"
BESIDE = ("-wal", ".lock")

Node = tuple[int, int]


class Files(NamedTuple):
    """Which files the names of a log lead to; None for one that is not there."""

    log: Node | None
    beside: dict[str, Node | None]

    @classmethod
    def of(cls, path: Path) -> "Files":
        """Look. Raises OSError."""
        return cls(_node(path), {suffix: _node(Path(f"{path}{suffix}")) for suffix in BESIDE})

    def lost(self, path: Path) -> str | None:
        """Say which name does not lead to its file any more, None when all do, or nobody can tell."""
        try:
            now = Files.of(path)
        except OSError:
            return None
        names = [(path, self.log, now.log)]
        names += [(Path(f"{path}{suffix}"), self.beside[suffix], now.beside[suffix]) for suffix in BESIDE]
        for name, before, found in names:
            if before is not None and found != before:
                what = "is not there any more" if found is None else "is another file now"
                return f"{name.name} {what}: stop the service, and put the log's own files back"
        return None


def new_signature() -> int:
    """Return what no other log is signed with, by all odds; never 0, which is no signature."""
    return secrets.randbits(SIGNATURE_BITS) | 1


def check(path: Path) -> int:
    """Return the signature of the log that is to be written. Raises LogUnavailable where that would do harm.

    As ``check_wal``.
    """
    signature = check_wal(path)
    if path.exists() and path.stat().st_nlink > 1:
        raise LogUnavailable(
            f"{path} has another name, by a hard link: what is written under one changes the other. Copy it"
            " (tailrace backup --db), and remove the link"
        )
    return signature


def check_wal(path: Path) -> int:
    """Return the signature of the log at ``path``. Raises LogUnavailable where its WAL is another's.

    Only while this process has not opened it: closing a file drops the locks that SQLite holds on it.
    """
    signature = _signature(path)
    try:
        has_wal = Path(f"{path}-wal").stat().st_size > 0
    except FileNotFoundError:
        has_wal = False
    if has_wal and signature is None:
        raise LogUnavailable(f"{path}-wal is there, but not its log: put that back, or move the WAL away")
    recorded = _recorded(path)
    if has_wal and recorded and signature not in recorded:
        raise LogUnavailable(
            f"{path}-wal belongs to another log than the one that is there now: put that back, or move the"
            " WAL away"
        )
    return signature or 0


def record(path: Path, before: int, signature: int, *, certain: bool = False) -> None:
    """Keep that the WAL belongs to the log that is signed with either. Raises OSError."""
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, RECORD.format(before, signature).encode(), RECORD_AT)
        if certain:
            os.fsync(file)
    finally:
        os.close(file)


def _signature(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            file.seek(SIGNATURE_AT)
            return int.from_bytes(file.read(4), "big")  # of an empty file: 0
    except FileNotFoundError:
        return None


def _recorded(path: Path) -> set[int]:
    try:
        content = Path(f"{path}.lock").read_bytes()[RECORD_AT:]
    except FileNotFoundError:
        return set()
    found = re.fullmatch(rb"([0-9a-f]{8}) ([0-9a-f]{8})\n", content)
    return {int(each, 16) for each in found.groups()} if found else set()


def _node(path: Path) -> Node | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
