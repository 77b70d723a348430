"""The indexes have what they lack after the answers: no append waits for them, and none fails with them."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.log import commit, store
from service.log.sqlite import SqliteLog
from service.log.store import Store
from service.log.verify import verify
from tests.log.contract import asleep, new, read_stream, texts

PLACE = Store.place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tailrace.db"


@pytest.fixture
async def log(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteLog]:
    monkeypatch.setattr(store, "UNPLACED_MAX", 4)
    monkeypatch.setattr(commit, "RETRY_INTERVAL_S", 0.0)
    log = SqliteLog.open(path)
    yield log
    await log.close()


def placed(path: Path) -> int:
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        (count,) = db.execute("SELECT count(*) FROM places").fetchone()
    db.close()
    return int(count)


async def test_an_append_is_answered_before_the_indexes_have_it(
    log: SqliteLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, begun = threading.Event(), threading.Event()

    def slow(of: Store) -> None:
        begun.set()
        goes_on.wait(20)
        PLACE(of)

    monkeypatch.setattr(Store, "place", slow)
    try:
        async with asyncio.timeout(10):
            await log.append("run/a", new(*"012345"), expected_seq=-1)
            assert await asyncio.to_thread(begun.wait, 5)
            assert texts(await read_stream(log, "run/a")) == list("012345")
            assert placed(path) == 0
            behind = await asleep(log.append("run/a", new("6"), expected_seq=5))
            goes_on.set()
            assert (await behind).seq == 6
    finally:
        goes_on.set()
    assert placed(path) == 6, "not yet the last, which is one"


async def test_indexes_that_cannot_be_written_refuse_nothing(
    log: SqliteLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [sqlite3.OperationalError("database or disk is full")] * 3

    def failing(of: Store) -> None:
        if failures:
            of._db.execute("BEGIN IMMEDIATE")
            of._db.execute("DELETE FROM places")  # half done
            raise failures.pop()
        PLACE(of)

    monkeypatch.setattr(Store, "place", failing)
    async with asyncio.timeout(20):
        for seq in range(20):
            assert (await log.append("run/a", new(str(seq)), expected_seq=seq - 1)).seq == seq
    assert not failures
    assert texts(await read_stream(log, "run/a")) == [str(seq) for seq in range(20)]
    assert log.unavailable is None
    await log.close()
    assert placed(path) == 20
    assert verify(path).faults == []
