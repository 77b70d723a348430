"""What the machine offers the service: open files, connections, the clock, the disk. One finding each."""

import ctypes
import os
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile

from service.ops.doctor import Finding, fail, ok, warn
from service.ops.settings import Settings

OTHER_FILES = 256  # open besides the watchers' connections: the log, steps, requests
BACKLOG = 2_048  # as server.py asks for
FLUSHES = 12
FLUSH_SLOW_S = 0.02
FLUSH_TOO_FAST_S = 0.00002  # no disk does it in that time
YEAR_LEAST = 2025
NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "beegfs",
    "gpfs",
}
MEMORY = {"tmpfs", "ramfs"}
CONTAINER = {"overlay", "aufs"}
TIME_ERROR = 5  # of adjtimex: the clock is not synchronised


def open_files(settings: Settings, limit: int | None = None) -> Finding:
    """Compare how many files may be open with what is needed.

    ``limit``: of the service that runs; None: the most that one started here would raise it to.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if limit is None else limit
    needed = settings.max_watchers + OTHER_FILES
    if most == resource.RLIM_INFINITY or most >= needed:
        return ok("open files", f"{most:,} allowed, {needed:,} needed for TAILRACE_MAX_WATCHERS and the rest")
    said = f"{most:,} allowed, but TAILRACE_MAX_WATCHERS={settings.max_watchers} needs {needed:,}"
    return warn(
        "open files",
        said,
        f"LimitNOFILE={needed} in the unit, ulimit -n {needed} in a shell, or a lower maximum",
    )


def connections(path: Path = Path("/proc/sys/net/core/somaxconn")) -> Finding:
    """Look at how many connections may wait to be accepted."""
    try:
        most = int(path.read_text())
    except (OSError, ValueError):
        return ok("connections", "the kernel does not say how many may wait to be accepted")
    if most >= BACKLOG:
        return ok("connections", f"{most:,} may wait to be accepted")
    said = f"{most:,} may wait to be accepted: when many come back at once, some are refused"
    return warn("connections", said, f"sysctl net.core.somaxconn={BACKLOG}")


# The clock


def clock(newest: datetime | None, now: datetime | None = None) -> Iterator[Finding]:
    """Look at the clock; ``newest`` is the time of the log's last event. Order never depends on it."""
    now = now or datetime.now(UTC)
    wrong = False
    if now.year < YEAR_LEAST:
        wrong = True
        yield fail("clock", f"it says {now:%Y-%m-%d}", "set it: events would carry this time for ever")
    if newest is not None and newest - now > timedelta(seconds=1):
        wrong = True
        said = f"the newest event is of {newest:%Y-%m-%d %H:%M:%S}, {newest - now} ahead of this clock"
        yield warn(
            "clock", said, "find out which is right; times in the log will go back, its order will not"
        )
    synchronised = _synchronised()
    if synchronised is False:
        yield warn("clock", "nothing keeps it right", "timedatectl set-ntp true, or run chrony")
    elif not wrong:
        kept = "" if synchronised is None else ", kept right by the network"
        yield ok("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}{kept}")


def _synchronised() -> bool | None:
    """Ask the kernel whether something disciplines the clock; None where it cannot be asked."""
    try:
        buffer = ctypes.create_string_buffer(512)  # a struct timex with modes 0: only look
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


# The disk


def disk(settings: Settings) -> Iterator[Finding]:
    """Look at the disk of the log: space, file system, what a flush costs."""
    directory = settings.db.absolute().parent
    try:
        found = os.statvfs(directory)
    except OSError as error:
        yield fail("disk", f"{directory}: {error.strerror}", "give the log a directory that is there")
        return
    if found.f_flag & os.ST_RDONLY:
        yield fail(
            "disk",
            f"{directory} is mounted read-only",
            "mount -o remount,rw, or look at the kernel's messages",
        )
        return
    yield _space(found.f_bavail * found.f_frsize, settings.min_free_bytes)
    if found.f_files and not found.f_favail:
        yield fail("disk", "no file can be made: there are no inodes left", "remove files")
    yield _file_system(directory)
    yield _flush(directory)


def _space(free: int, least: int) -> Finding:
    said = f"{free / 2**20:,.0f} MiB are free"
    if free < least:
        return fail("disk", f"{said}: execute answers 503", f"make room; TAILRACE_MIN_FREE_BYTES is {least}")
    if free < 4 * least:
        return warn("disk", f"{said}; below {least / 2**20:,.0f} MiB no run is accepted", "make room")
    return ok("disk", said)


def file_system_of(directory: Path, mounts: str) -> str:
    """Return the type of the file system that ``directory`` is on; ``mounts`` is what mountinfo says."""
    longest, type_ = "", "unknown"
    for line in mounts.splitlines():
        fields = line.split(" ")
        place = fields[4].encode().decode("unicode_escape")
        if Path(place) in (directory, *directory.parents) and len(place) >= len(longest):
            longest, type_ = place, fields[fields.index("-") + 1]
    return type_


def _file_system(directory: Path) -> Finding:
    try:
        type_ = file_system_of(directory.resolve(), Path("/proc/self/mountinfo").read_text())
    except (OSError, ValueError, IndexError):
        return ok("disk", "the file system's type cannot be found out")
    if type_ in NETWORK or type_.startswith("fuse."):
        said = (
            f"{directory} is on {type_}, over a network or through a program: SQLite's WAL is not safe there"
        )
        return fail("disk", said, "put the log on a local disk")
    if type_ in MEMORY:
        return warn("disk", f"{directory} is on {type_}: gone with the next boot", "put the log on a disk")
    if type_ in CONTAINER:
        said = f"{directory} is in a container's own layer: gone with the container"
        return warn("disk", said, "put the log on a volume")
    return ok("disk", f"file system {type_}")


def _flush(directory: Path) -> Finding:
    try:
        took = sorted(_flush_s(directory))[FLUSHES // 2]
    except OSError as error:
        return fail(
            "disk",
            f"nothing can be flushed in {directory}: {error.strerror}",
            "look at the disk and its rights",
        )
    said = f"a flush takes {took * 1000:.2f} ms"
    if took > FLUSH_SLOW_S:
        return warn(
            "disk",
            f"{said}: at most {1 / took:.0f} commits a second",
            "a faster disk, or one with a protected cache",
        )
    if took < FLUSH_TOO_FAST_S:
        return warn(
            "disk", f"{said}: too fast to be true", "find out whether a power cut loses what was flushed"
        )
    return ok("disk", said)


def _flush_s(directory: Path) -> Iterator[float]:
    with TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            yield time.perf_counter() - began
