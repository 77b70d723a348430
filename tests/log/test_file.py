"""The log's file: how it is made, brought up to date, opened again, and closed."""

import asyncio
import errno
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlite_utils import Database

from migrations.log import log as migrations
from service.errors import LogUnavailable
from service.log import store, tail, writer
from service.log.sqlite import APPENDS_WAITING_MAX, SqliteLog
from service.log.verify import verify
from tests.log.contract import asleep, new, read_stream, texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tailrace.db"


async def test_what_was_stored_is_there_again(path: Path) -> None:
    log = SqliteLog.open(path)
    first = await log.append("run/a", new("0", "1"), expected_seq=-1)
    await log.close()
    log = SqliteLog.open(path)
    assert texts(await read_stream(log, "run/a")) == ["0", "1"]
    assert await log.wait(None, after=-1) == first.position
    assert await log.wait(None, after=first.position - 1, types=["note"]) == first.position
    second = await log.append("run/a", new("2"), expected_seq=1)
    assert second.position == first.position + 1
    await log.close()


async def test_a_new_file_is_its_owners_alone(path: Path) -> None:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0"), expected_seq=-1)
    for name in ("", "-wal", "-shm"):
        assert stat.S_IMODE(Path(f"{path}{name}").stat().st_mode) == 0o600
    await log.close()
    assert not Path(f"{path}-wal").exists(), "a closed log is one file"
    log = SqliteLog.open(path)
    assert texts(await read_stream(log, "run/a")) == ["0"]  # out of the file, by a connection of its own
    await log.append("run/a", new("1"), expected_seq=0)
    await log.close()
    assert not Path(f"{path}-wal").exists()


async def test_the_names_of_its_files_are_flushed_or_it_does_not_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await SqliteLog.open(path).close()

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(LogUnavailable, match="Input/output error"):
        SqliteLog.open(path)


async def test_every_commit_is_flushed(path: Path) -> None:
    log = SqliteLog.open(path)
    connection = log._writer._commits._store._db
    settings = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
    }
    assert settings == {"synchronous": 2, "journal_mode": "wal"}
    await log.close()


async def test_migrations_run_once(path: Path) -> None:
    await SqliteLog.open(path).close()
    applied = [step.name for step in migrations.applied(Database(path))]
    await SqliteLog.open(path).close()
    assert [step.name for step in migrations.applied(Database(path))] == applied
    assert applied[0] == "events_by_position"


def test_a_migration_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(db: Database) -> None:
        db.execute("CREATE TABLE half (id INTEGER)")
        raise sqlite3.OperationalError("no")

    first = migrations._migrations[0]
    monkeypatch.setattr(migrations, "_migrations", [first, type(first)("broken", broken)])
    with pytest.raises(LogUnavailable):
        SqliteLog.open(path)
    monkeypatch.undo()
    assert "half" not in Database(path).table_names()


def test_a_newer_file_is_left_alone(path: Path) -> None:
    db = Database(path)
    migrations.apply(db)
    db["_sqlite_migrations"].insert({"migration_set": "log", "name": "from_the_future", "applied_at": ""})
    db.close()
    with pytest.raises(LogUnavailable, match="newer version .from_the_future"):
        SqliteLog.open(path)


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be taken for one" * 20])
def test_what_is_not_a_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LogUnavailable, match="not a database"):
        SqliteLog.open(path)
    assert path.read_bytes() == content


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="No such file"):
        SqliteLog.open(tmp_path / "none" / "tailrace.db")


async def test_closing_stores_what_was_handed_in(path: Path) -> None:
    log = SqliteLog.open(path)
    appending = [await asleep(log.append(f"run/{n}", new(*["x"] * 400), expected_seq=-1)) for n in range(50)]
    await log.close()
    assert [answer.seq for answer in await asyncio.gather(*appending)] == [399] * 50
    with pytest.raises(LogUnavailable):
        await log.append("run/late", new("0"), expected_seq=-1)
    assert log.unavailable == "the log is closed"
    await log.close()
    log = SqliteLog.open(path)
    assert len(await log.read_all(after=0, limit=50_000)) == 50 * 400
    await log.close()


async def test_more_appends_than_are_taken_wait_and_are_stored(path: Path) -> None:
    log = SqliteLog.open(path)
    count = APPENDS_WAITING_MAX + 200
    most_waiting = 0

    async def append(number: int) -> None:
        nonlocal most_waiting
        await log.append(f"run/{number}", new("0"), expected_seq=-1)
        most_waiting = max(most_waiting, APPENDS_WAITING_MAX - log._room.free)

    await asyncio.gather(*(append(number) for number in range(count)))
    assert log._room.free == APPENDS_WAITING_MAX
    assert 0 < most_waiting <= APPENDS_WAITING_MAX
    assert len(await log.read_all(after=0, limit=count + 1)) == count
    await log.close()


async def test_appends_that_wait_when_it_closes_are_refused_or_stored(path: Path) -> None:
    log = SqliteLog.open(path)
    count = APPENDS_WAITING_MAX + 50
    appending = [
        asyncio.ensure_future(log.append(f"run/{n}", new("0"), expected_seq=-1)) for n in range(count)
    ]
    await asyncio.sleep(0)
    await log.close()
    answers = await asyncio.wait_for(asyncio.gather(*appending, return_exceptions=True), 5)
    refused = [answer for answer in answers if isinstance(answer, LogUnavailable)]
    assert len(refused) == 50
    assert {answer.stored for answer in refused} == {False}


def test_the_tail_holds_whatever_no_index_has() -> None:
    events = store.UNPLACED_MAX + writer.GROUP_EVENTS_MAX
    size = store.UNPLACED_BYTES_MAX + writer.GROUP_BYTES_MAX
    assert events * tail.EVENT_BYTES + size < tail.TAIL_BYTES_MAX * 63 // 64


@pytest.mark.parametrize("unplaced_max", [3, 4_000])
async def test_a_stream_that_is_let_go_is_taken_up_where_it_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch, unplaced_max: int
) -> None:
    monkeypatch.setattr("service.log.store.HEADS_MAX", 8)
    monkeypatch.setattr("service.log.store.HEADS_KEPT", 2)
    monkeypatch.setattr("service.log.store.UNPLACED_MAX", unplaced_max)
    log = SqliteLog.open(path)
    for seq in range(3):
        for number in range(30):
            assert (await log.append(f"run/{number}", new(str(seq)), expected_seq=seq - 1)).seq == seq
            assert len(log._writer._commits._store._heads) <= 9
    await log.close()
    assert verify(path).faults == []


async def test_a_killed_log_knows_all_its_ends_again(path: Path) -> None:
    log = SqliteLog.open(path)
    for seq in range(5):
        for name in ("run/a", "run/b"):
            await log.append(name, new(str(seq), label="x" if seq == 4 else "note"), expected_seq=seq - 1)
    killed = path.with_name("killed.db")
    for suffix in ("", "-wal"):
        Path(f"{killed}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    await log.close()
    assert verify(killed).faults == [], "what no index holds yet is no fault"
    log = SqliteLog.open(killed)
    assert [await log.wait(name, after=-2) for name in ("run/a", "run/b", "run/c")] == [4, 4, -1]
    assert texts(await log.read_all(after=0, limit=9, types=["x"])) == ["4", "4"]
    assert texts(await log.read("run/b", after=2, limit=9)) == ["3", "4"]
    assert (await log.append("run/a", new("5"), expected_seq=4)).position == 11
    await log.close()
    assert verify(killed).faults == []


async def test_what_is_committed_and_not_yet_told_is_not_shown(path: Path) -> None:
    log = SqliteLog.open(path)
    await log.append("run/a", new("0"), expected_seq=-1)
    log._tail.reset(1, {"note": 1})
    committed, tell = asyncio.Event(), log._writer._tell
    kept: list[object] = []

    def keep(told: object) -> None:
        kept.append(told)
        loop.call_soon_threadsafe(committed.set)

    loop = asyncio.get_running_loop()
    log._writer._tell = keep
    appending = asyncio.ensure_future(log.append("run/a", new("1", "2"), expected_seq=0))
    await committed.wait()
    assert texts(await log.read("run/a", after=-1, limit=9)) == ["0"]
    assert texts(await log.read_all(after=0, limit=9)) == ["0"]
    assert texts(await log.read_all(after=0, limit=9, types=["note"])) == ["0"]
    assert await log.wait("run/a", after=-2) == 0
    assert await log.wait(None, after=-1) == 1
    log._writer._tell = tell
    tell(kept[0])
    await appending
    assert texts(await read_stream(log, "run/a")) == ["0", "1", "2"]
    await log.close()


async def test_a_cancelled_appender_loses_only_its_answer(path: Path) -> None:
    log = SqliteLog.open(path)
    appending = await asleep(log.append("run/a", new("0"), expected_seq=-1))
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    await log.append("run/b", new("0"), expected_seq=-1)
    assert texts(await read_stream(log, "run/a")) == ["0"]
    assert log._room.free == APPENDS_WAITING_MAX
    await log.close()


async def test_the_wal_is_kept_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.log.writer.WAL_BYTES_MAX", 200_000)
    monkeypatch.setattr("service.log.store.WAL_BYTES", 200_000)
    log = SqliteLog.open(path)
    seq = -1
    for _ in range(100):
        seq = (await log.append("run/a", new("x" * 20_000), expected_seq=seq)).seq
        await log.read_all(after=0, limit=3)
    assert Path(f"{path}-wal").stat().st_size < 800_000
    assert path.stat().st_size > 1_500_000
    await log.close()


async def test_a_page_from_the_disk_is_bounded_in_bytes(path: Path) -> None:
    log = SqliteLog.open(path)
    for n in range(4):
        await log.append("run/a", new(*["x" * 100_000] * 7), expected_seq=n * 7 - 1)
    log._tail.reset(log._tail.position, log._tail._last_of)
    page = await log.read("run/a", after=-1, limit=500)
    assert len(page) == 11  # 1 MiB is passed by the eleventh
    assert len(await log.read_all(after=page[-1].position, limit=500)) == 11
    assert len(await read_stream(log, "run/a")) == 28
    await log.close()


async def test_a_small_append_passes_large_ones(path: Path) -> None:
    log = SqliteLog.open(path)
    order: list[str] = []

    async def append(stream: str, count: int) -> None:
        await log.append(stream, new(*["x"] * count), expected_seq=-1)
        order.append(stream)

    appending = [append(f"run/large{n}", 900) for n in range(12)] + [append("run/small", 1)]
    await asyncio.gather(*appending)
    assert order.index("run/small") < 6, order
    assert sorted(order) == sorted([*(f"run/large{n}" for n in range(12)), "run/small"])
    await log.close()
