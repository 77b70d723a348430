"""What a process did to its files, as strace saw it: the operations that a disk may lose, in their order."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

CALLS = "openat,pwrite64,write,ftruncate,fallocate,fdatasync,fsync,unlink,unlinkat,rename,sync_file_range"
STRING = r'"((?:\\x[0-9a-f]{2})*)"'
FD = r"(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?"
WRITE = re.compile(rf"(?:pwrite64|write)\({FD}, {STRING}(\.\.\.)?, \d+(?:, (\d+))?")
SYNC = re.compile(rf"(?:fdatasync|fsync)\({FD}")
TRUNCATE = re.compile(rf"ftruncate\({FD}, (\d+)")
OPEN = re.compile(rf"openat\({FD}, {STRING}, ([A-Z_|]+)")
UNLINK = re.compile(rf"unlink\({STRING}|unlinkat\({FD}, {STRING}")
RESULT = re.compile(r"\) += (-?\d+)")
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"<\.\.\. \w+ resumed>")


class Write(Struct, frozen=True):
    """``data`` at ``at``; ``at`` -1: appended."""

    path: Path
    at: int
    data: bytes


class Truncate(Struct, frozen=True):
    """The file ends at ``size``."""

    path: Path
    size: int


class Sync(Struct, frozen=True):
    """The file, or directory, was flushed; ``failed``: the kernel said that it was not."""

    path: Path
    failed: bool = False


class Create(Struct, frozen=True):
    """The file was opened with O_CREAT, and there may have been one."""

    path: Path


class Unlink(Struct, frozen=True):
    """The name is gone."""

    path: Path


Operation = Write | Truncate | Sync | Create | Unlink


def traced(command: Sequence[str], trace: Path, *, inject: str | None = None) -> list[str]:
    """Return the command that runs ``command`` and writes to ``trace`` what it does to files."""
    strace = ["strace", "-f", "-y", "-xx", "-qq", "-s", "1000000", "-o", str(trace), "-e", f"trace={CALLS}"]
    if inject is not None:
        strace += ["-e", f"inject={inject}"]
    return [*strace, *command]


def python(*words: str) -> list[str]:
    return [sys.executable, "-W", "error", *words]


def run(command: Sequence[str], *, codes: set[int], cwd: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    assert done.returncode in codes, (done.returncode, done.stderr[-2000:])


def operations(trace: Path, directory: Path) -> Iterator[Operation]:
    """Yield what was done to ``directory`` and the files in it; a call counts when it returned."""
    begun: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        pid, _, call = line.partition(" ")
        call = call.lstrip()
        if call.endswith(UNFINISHED):
            begun[pid] = call.removesuffix(UNFINISHED)
            continue
        if RESUMED.match(call):
            call = begun.pop(pid) + RESUMED.sub("", call, count=1)
        result = RESULT.search(call)
        if result is None:  # the process ended in it
            continue
        found = _operation(call, int(result[1]))
        if found is not None and directory in {found.path, found.path.parent}:
            yield found


def _operation(call: str, result: int) -> Operation | None:
    if match := WRITE.match(call):
        name, deleted, data, cut, at = match.groups()
        assert cut is None, "strace did not keep all of a write"
        if result <= 0 or deleted:
            return None
        return Write(_path(name), -1 if at is None else int(at), _bytes(data)[:result])
    if match := SYNC.match(call):
        return None if match[2] else Sync(_path(match[1]), failed=result != 0)
    if result < 0:
        return None
    if match := TRUNCATE.match(call):
        return None if match[2] else Truncate(_path(match[1]), int(match[3]))
    if match := OPEN.match(call):
        return Create(Path(_path(match[1]), _path(match[3]))) if "O_CREAT" in match[4] else None
    if match := UNLINK.match(call):
        return Unlink(_path(match[1] or match[4]))
    assert not call.startswith(("fallocate", "rename", "sync_file_range")) or "(deleted)" in call, call
    return None


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> Path:
    return Path(_bytes(text).decode())
