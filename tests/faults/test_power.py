"""Power loss at every moment of the writer: nothing acknowledged is lost, and what is left is whole."""

import random
import shutil
from pathlib import Path

import pytest

from tests.faults.disk import Disk, File
from tests.faults.power import ACKS, DB, KILLED, ROOT, power_losses
from tests.faults.syscalls import (
    Create,
    Operation,
    Sync,
    Truncate,
    Unlink,
    Write,
    operations,
    python,
    run,
    traced,
)

STATES = 500
CONTROL_STATES = 150
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs strace to see what is written"
)
FRAME_HEADER_BYTES = 24  # in a WAL


@needs_strace
def test_no_power_loss_takes_what_was_acknowledged(in_memory):
    faults, figures = power_losses(in_memory, seed=1, count=STATES // 2)
    assert faults == []
    faults, failing = power_losses(in_memory, seed=2, count=STATES // 2)
    assert faults == []
    assert (figures["failed_flushes"], failing["failed_flushes"] > 0) == (0, True)
    assert min(figures["operations"], failing["operations"]) > 1_000


@needs_strace
def test_a_log_that_does_not_flush_is_caught(in_memory):
    faults, _ = power_losses(in_memory, seed=1, count=CONTROL_STATES, synchronous="NORMAL")
    assert any("was acknowledged" in fault for fault in faults)


def opening_after_kill(directory: Path, *, inject: str | None) -> tuple[bytes, list[Operation]]:
    """Kill a writer, open what it left, and return the WAL that it left and what the opening did."""
    directory.mkdir()
    trace = directory.with_suffix(".trace")
    words = ["-m", "tests.faults.appender", str(directory / DB), str(directory / ACKS), "--end", "kill"]
    run(python(*words, "--appends", "40"), codes=KILLED, cwd=ROOT)
    wal = (directory / f"{DB}-wal").read_bytes()
    run(traced(python(*words, "--appends", "0"), trace, inject=inject), codes={*KILLED, 3}, cwd=ROOT)
    return wal, list(operations(trace, directory))


@needs_strace
def test_what_the_wal_shows_is_written_again_before_any_of_it_is_copied(in_memory):
    wal, done = opening_after_kill(in_memory / "d", inject=None)
    copied = next(n for n, each in enumerate(done) if isinstance(each, Write) and each.path.name == DB)
    disk = Disk(in_memory / "d")
    disk.durable_names = disk.names = {f"{DB}-wal": File()}
    on_wal = [operation for operation in done[:copied] if operation.path.name == f"{DB}-wal"]
    for operation in on_wal:
        disk.do(operation)
    # The commit that signs the log comes behind what the WAL showed, over what it did not show any more.
    shown = min(
        each.at for each in on_wal if isinstance(each, Write) and len(each.data) == FRAME_HEADER_BYTES
    )
    assert shown > 50_000
    assert disk.names[f"{DB}-wal"].durable[:shown] == wal[:shown]


@needs_strace
def test_nothing_is_copied_from_a_wal_that_cannot_be_flushed(in_memory):
    _, done = opening_after_kill(in_memory / "d", inject="fdatasync:error=EIO:when=1")
    assert any(isinstance(each, Sync) and each.failed for each in done)
    assert not any(isinstance(each, Write) and each.path.name == DB for each in done)


@needs_strace
def test_the_name_of_the_wal_is_certain_before_any_of_it_is_copied(in_memory):
    """SQLite flushes the directory of a new one, which is the sixth flush, and does not heed when that fails."""
    inject = "fdatasync:error=EIO:when=6"
    directory = in_memory / "d"
    directory.mkdir()
    trace = directory.with_suffix(".trace")
    words = ["-m", "tests.faults.appender", str(directory / DB), str(directory / ACKS), "--end", "kill"]
    run(traced(python(*words, "--appends", "0"), trace, inject=inject), codes={*KILLED, 3}, cwd=ROOT)
    done = list(operations(trace, directory))
    unsure = done.index(Sync(directory, failed=True))
    copied = next(
        n for n, each in enumerate(done[unsure:]) if isinstance(each, Write) and each.path.name == DB
    )
    assert Sync(directory) in done[unsure:][:copied]


@needs_strace
def test_a_log_whose_journal_cannot_be_a_wal_is_not_opened(in_memory):
    directory = in_memory / "d"
    directory.mkdir()
    trace = directory.with_suffix(".trace")
    words = ["-m", "tests.faults.appender", str(directory / DB), str(directory / ACKS), "--end", "kill"]
    run(
        traced(python(*words, "--appends", "0"), trace, inject="fdatasync:error=EIO:when=3"),
        codes={3},
        cwd=ROOT,
    )


def lost(disk: Disk) -> set[tuple[tuple[str, bytes], ...]]:
    """Return all that many power losses leave."""
    return {tuple(sorted(disk.after_power_loss(random.Random(seed)).items())) for seed in range(500)}


def test_the_disk_keeps_what_was_flushed_and_may_lose_anything_else():
    directory = Path("d")
    path = directory / "f"
    disk = Disk(directory)
    disk.do(Create(path))
    disk.do(Write(path, 0, b"ab"))
    assert lost(disk) == {(), (("f", b""),), (("f", b"ab"),)}
    disk.do(Sync(path))
    assert lost(disk) == {(), (("f", b"ab"),)}, "the name is not flushed with the file"
    disk.do(Sync(directory))
    assert lost(disk) == {(("f", b"ab"),)}
    disk.do(Write(path, 1, b"x"))
    disk.do(Truncate(path, 1))
    assert {content for ((_, content),) in lost(disk)} == {b"ab", b"ax", b"a"}
    disk.do(Unlink(path))
    assert () in lost(disk)


def test_a_flush_that_failed_saves_nothing_and_neither_does_the_next():
    path = Path("d/f")
    disk = Disk(path.parent)
    for operation in (
        Create(path),
        Sync(path.parent),
        Write(path, 0, b"ab"),
        Sync(path, failed=True),
        Sync(path),
    ):
        disk.do(operation)
    assert lost(disk) == {(("f", b""),), (("f", b"ab"),)}
    disk.do(Write(path, 0, b"cd"))
    disk.do(Sync(path))
    assert lost(disk) == {(("f", b"cd"),)}, "what was written anew is safe"
