"""Every Log against the contract; SQLite once with its tail and once from the disk alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.log import tail
from service.log.memory import MemoryLog
from service.log.sqlite import SqliteLog
from tests.log.contract import LogContract


class TestMemory(LogContract):
    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()


class TestSqlite(LogContract):
    @pytest.fixture
    async def log(self, tmp_path: Path) -> AsyncIterator[SqliteLog]:
        log = SqliteLog.open(tmp_path / "tailrace.db")
        yield log
        await log.close()


class TestSqliteFromDisk(TestSqlite):
    @pytest.fixture(autouse=True)
    def no_tail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tail.Tail.__init__, "__kwdefaults__", {"bytes_max": 0})
