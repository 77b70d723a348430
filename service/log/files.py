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

from isal.isal_zlib import crc32

from service.errors import LogUnavailable

SIGNATURE_AT = 60  # in SQLite's header: `user_version`, big-endian, which it keeps for whoever uses the file
SIGNATURE_BITS = 31
RECORD_AT = 20  # in the lock's file, behind its first line, which is that of who holds it (lock.py)
RECORDED_MAX = 16  # starts in a row that fail before the file is certain to show its new signature
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


def check(path: Path) -> list[int]:
    """Return what the log that is to be written may be signed with, as ``check_wal``.

    Raises LogUnavailable where to write it would do harm.
    """
    signatures = check_wal(path)
    if path.exists() and path.stat().st_nlink > 1:
        raise LogUnavailable(
            f"{path} has another name, by a hard link: what is written under one changes the other. Copy it"
            " (tailrace backup --db), and remove the link"
        )
    return signatures


def check_wal(path: Path) -> list[int]:
    """Return what the log at ``path`` may be signed with. Raises LogUnavailable where its WAL is another's.

    That is more than what it shows: where a flush has failed, a power loss may bring back what was before.
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
    if has_wal and recorded and not _is_of(signature or 0, recorded):
        raise LogUnavailable(
            f"{path}-wal belongs to another log than the one that is there now: put that back, or move the"
            " WAL away"
        )
    return [*recorded, signature or 0]


def record(path: Path, *signatures: int) -> None:
    """Keep that the WAL belongs to the log signed with one of these, the newest last. Raises OSError."""
    kept = [*dict.fromkeys(reversed(signatures))][:RECORDED_MAX]
    kept += kept[:1] * (RECORDED_MAX - len(kept))
    said = " ".join([f"{each:08x}" for each in kept]).encode()
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, b"%s %08x\n" % (said, crc32(said)), RECORD_AT)
        os.fsync(file)
    finally:
        os.close(file)


def _is_of(signature: int, recorded: list[int]) -> bool:
    """Say whether it is one of them, or one half written over another when power was lost."""
    columns = zip(*(each.to_bytes(4, "big") for each in recorded), strict=True)
    return all(byte in column for byte, column in zip(signature.to_bytes(4, "big"), columns, strict=True))


def _signature(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            file.seek(SIGNATURE_AT)
            return int.from_bytes(file.read(4), "big")  # of an empty file: 0
    except FileNotFoundError:
        return None


def _recorded(path: Path) -> list[int]:
    """Return what was kept, nothing if that was not written to its end."""
    try:
        content = Path(f"{path}.lock").read_bytes()[RECORD_AT:]
    except FileNotFoundError:
        return []
    said, _, crc = content.strip().rpartition(b" ")
    if not re.fullmatch(rb"[0-9a-f]{8}( [0-9a-f]{8})*", said) or crc != b"%08x" % crc32(said):
        return []
    return [int(each, 16) for each in reversed(said.split())]  # the newest last, as they were given


def _node(path: Path) -> Node | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
