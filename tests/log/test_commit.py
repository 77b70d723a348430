"""What is answered when the store fails, and that the work goes on when it works again."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import commit as commit_module
from service.log import store as store_module
from service.log.sqlite import SqliteLog
from service.log.store import Store
from tests.log.contract import asleep, new, read_stream, texts

EIO = sqlite3.OperationalError("disk I/O error")
COMMIT = Store.commit


@pytest.fixture
async def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteLog]:
    monkeypatch.setattr(commit_module, "RETRY_INTERVAL_S", 0.0)
    log = SqliteLog.open(tmp_path / "tailrace.db")
    await log.append("run/a", new("0"), expected_seq=-1)
    yield log
    await log.close()


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Replace a method of Store by one that fails; ``mend`` puts it back."""

    class Fail:
        def commit_before_it_is_stored(self) -> None:
            def failing(store: Store) -> None:
                raise EIO

            monkeypatch.setattr(Store, "commit", failing)

        def commit_after_it_is_stored(self) -> None:
            def failing(store: Store) -> None:
                COMMIT(store)
                raise EIO

            monkeypatch.setattr(Store, "commit", failing)

        def open(self) -> None:
            def failing(store: Store, path: Path, *, create: bool) -> None:
                raise EIO

            monkeypatch.setattr(Store, "__init__", failing)

        def mend(self) -> None:
            monkeypatch.undo()
            monkeypatch.setattr(commit_module, "RETRY_INTERVAL_S", 0.0)

    return Fail()


async def test_a_commit_that_raised_and_is_stored_is_a_success(log: SqliteLog, fail) -> None:
    fail.commit_after_it_is_stored()
    waiting = await asleep(log.wait("run/a", after=0))
    answer = await log.append("run/a", new("1", "2"), expected_seq=0)
    assert (answer.seq, await waiting) == (2, 2)
    fail.mend()
    await log.append("run/a", new("3"), expected_seq=2)
    assert texts(await read_stream(log, "run/a")) == ["0", "1", "2", "3"]
    assert log.unavailable is None


async def test_a_commit_that_raised_and_is_not_stored_says_so(log: SqliteLog, fail) -> None:
    fail.commit_before_it_is_stored()
    with pytest.raises(LogUnavailable) as refused:
        await log.append("run/a", new("lost"), expected_seq=0)
    assert refused.value.stored is False
    assert texts(await read_stream(log, "run/a")) == ["0"]
    fail.mend()
    assert (await log.append("run/a", new("1"), expected_seq=0)).seq == 1
    assert log.unavailable is None


@pytest.mark.parametrize("stored", [True, False])
async def test_what_cannot_be_looked_up_is_unknown(log: SqliteLog, fail, stored: bool) -> None:
    fail.commit_after_it_is_stored() if stored else fail.commit_before_it_is_stored()
    fail.open()
    waiting = await asleep(log.wait("run/a", after=0))
    everything = await asleep(log.wait(None, after=1, types=["note"]))
    with pytest.raises(LogUnavailable) as unknown:
        await log.append("run/a", new("1"), expected_seq=0)
    assert unknown.value.stored is None
    assert log.unavailable == "disk I/O error"
    assert texts(await read_stream(log, "run/a")) == ["0"], "shown before it is certain"
    with pytest.raises(LogUnavailable) as refused:
        await log.append("run/b", new("0"), expected_seq=-1)
    assert refused.value.stored is False

    fail.mend()  # the same append again, with the same expectation: at most one of them is stored
    if stored:
        with pytest.raises(WrongExpectedSeq) as wrong:
            await log.append("run/a", new("1"), expected_seq=0)
        assert wrong.value.actual == 1
    else:
        assert (await log.append("run/a", new("1"), expected_seq=0)).seq == 1
    assert await waiting == 1
    assert await everything == 2
    assert texts(await read_stream(log, "run/a")) == ["0", "1"]
    assert log.unavailable is None


async def test_one_failure_is_answered_to_the_whole_group(log: SqliteLog, fail) -> None:
    fail.commit_before_it_is_stored()
    appends = [log.append(f"run/{n}", new("0"), expected_seq=n % 2 - 1) for n in range(20)]
    answers = await asyncio.gather(*appends, return_exceptions=True)
    assert all(isinstance(answer, LogUnavailable) and answer.stored is False for answer in answers[::2])
    fail.mend()
    assert [event.stream for event in await log.read_all(after=0, limit=50)] == ["run/a"]


async def test_it_works_again_without_an_append(log: SqliteLog, fail, monkeypatch) -> None:
    fail.commit_after_it_is_stored()
    fail.open()
    monkeypatch.setattr("service.log.writer.RETRY_INTERVAL_S", 0.01)
    with pytest.raises(LogUnavailable):
        await log.append("run/a", new("1"), expected_seq=0)
    waiting = await asleep(log.wait("run/a", after=0))
    fail.mend()
    assert await asyncio.wait_for(waiting, 5) == 1
    assert log.unavailable is None


async def test_a_file_that_lost_events_is_not_written(log: SqliteLog, fail, monkeypatch) -> None:
    def shorter(store: Store) -> None:
        store.position = 0

    fail.commit_before_it_is_stored()
    load = Store._load
    monkeypatch.setattr(Store, "_load", lambda store: (load(store), shorter(store))[0])
    with pytest.raises(LogUnavailable) as unknown:
        await log.append("run/a", new("1"), expected_seq=0)
    assert unknown.value.stored is None
    assert "ends at 0, before 1" in str(log.unavailable)
    fail.mend()
    assert (await log.append("run/a", new("1"), expected_seq=0)).seq == 1


async def test_a_full_disk_refuses_and_recovers(log: SqliteLog, monkeypatch) -> None:
    file = log._writer._commits._store._db
    (pages,) = file.execute("PRAGMA page_count").fetchone()
    file.execute(f"PRAGMA max_page_count = {pages + 3}")
    seq, refused = 0, None
    while refused is None:
        try:
            seq = (await log.append("run/a", new("x" * 3000), expected_seq=seq)).seq
        except LogUnavailable as error:
            refused = error
    assert refused.stored is False
    assert "full" in refused.reason
    assert len(await read_stream(log, "run/a")) == seq + 1
    # The limit belonged to the connection that has been given up: there is space again.
    assert (await log.append("run/a", new("x" * 3000), expected_seq=seq)).seq == seq + 1
    assert log.unavailable is None


async def test_an_error_of_ours_ends_one_group_and_not_the_thread(log: SqliteLog) -> None:
    with pytest.raises(LogUnavailable) as refused:
        await log.append("run/\ud800", new("0"), expected_seq=-1)
    assert refused.value.stored is False
    assert (await log.append("run/a", new("1"), expected_seq=0)).seq == 1


def test_what_the_wal_shows_is_written_again_before_any_connection_can_copy_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    connect = sqlite3.connect

    def noted(*args: object, **kwargs: object) -> sqlite3.Connection:
        done.append("connected")
        return connect(*args, **kwargs)

    monkeypatch.setattr(store_module, "write_afresh", lambda _: done.append("written"))
    monkeypatch.setattr(sqlite3, "connect", noted)
    Store(tmp_path / "tailrace.db", create=True).close()
    assert done[:2] == ["written", "connected"]
