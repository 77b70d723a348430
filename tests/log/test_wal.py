"""How long the WAL is from the start, so that a commit only overwrites."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.log import store, wal
from service.log.sqlite import SqliteLog
from tests.log.contract import new, read_stream, texts

LIMIT = 1024 * 1024
WITHIN_A_LIMIT = f"""
import asyncio, resource, sys
from pathlib import Path
from service.log import NewEvent
from service.log.sqlite import SqliteLog

async def main(path):
    log = SqliteLog.open(path)
    for seq in range(20):
        await log.append("run/a", [NewEvent("note", b"%d" % seq)], expected_seq=seq - 1)
    print(Path(f"{{path}}-wal").stat().st_size)
    await log.close()

resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tailrace.db"


def size(path: Path) -> int:
    """Return how long the WAL is, and see that all of it has blocks."""
    found = Path(f"{path}-wal").stat()
    assert found.st_blocks * 512 >= found.st_size, "a commit would have to find it a block"
    return found.st_size


async def appended(log: SqliteLog, *, seqs: range) -> None:
    for seq in seqs:
        await log.append("run/a", new(f"{seq}"), expected_seq=seq - 1)


async def test_commits_find_the_wal_as_long_as_they_need_it(path: Path) -> None:
    for start in (0, 100):
        log = SqliteLog.open(path)
        before = size(path)
        await appended(log, seqs=range(start, start + 100))
        assert (before, size(path)) == (store.WAL_BYTES, store.WAL_BYTES)
        await log.close()


async def test_what_a_kill_leaves_in_front_of_the_zeros_is_taken_up(path: Path) -> None:
    log = SqliteLog.open(path)
    await appended(log, seqs=range(50))
    killed = path.with_name("killed.db")
    for suffix in ("", "-wal", ".lock"):
        shutil.copy(f"{path}{suffix}", f"{killed}{suffix}")
    await log.close()
    assert killed.stat().st_size < Path(f"{killed}-wal").stat().st_size == store.WAL_BYTES
    log = SqliteLog.open(killed)
    assert texts(await read_stream(log, "run/a")) == [f"{seq}" for seq in range(50)]
    await appended(log, seqs=range(50, 60))
    assert size(killed) == store.WAL_BYTES
    await log.close()


async def test_a_disk_that_is_short_of_space_is_left_what_it_has(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "_PLENTY", 2**50)
    log = SqliteLog.open(path)
    await appended(log, seqs=range(20))
    assert size(path) < LIMIT
    await log.close()


def test_who_may_have_no_longer_files_has_a_log_all_the_same(path: Path) -> None:
    command = [sys.executable, "-c", WITHIN_A_LIMIT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT, "what was begun is taken back"
