"""The commit rule: when a commit fails, reopen the file and look before answering.

A failed connection is never used again: after an fsync error the kernel may have dropped what it held.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from service.errors import LogUnavailable
from service.log.store import Append, Staged, Store

RETRY_INTERVAL_S = 1.0  # between two attempts to reopen a store that fails
LOOK_INTERVAL_S = 1.0  # between two looks at the names of its files: to look is to wait for the GIL once more
# Another process holds the file, or a write stopped short: the frame that makes a commit is written last.
NEVER_STORED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}

diagnostics = structlog.get_logger("tailrace.log")


class Resumed(NamedTuple):
    """The store was reopened and holds more than was known: it ends here."""

    position: int
    last_of: Mapping[str, int]


class Commits:
    """Commits groups of appends; survives whatever the store does. For one thread."""

    def __init__(self, path: Path, store: Store) -> None:
        self.unavailable: str | None = None
        self.resumed: Resumed | None = None
        # Of the last commit: what it took (None: it did not come to one), and what it stored.
        self.flush_s: float | None = None
        self.events = self.bytes = 0
        self._path = path
        self._store: Store | None = store
        self._position = store.position
        self._retry_at = 0.0
        self._files = store.files
        self._look_at = 0.0
        self._lost: str | None = None  # for good: what is under the names now is not ours to write

    def commit(self, appends: Sequence[Append]) -> list[Staged]:
        """Commit what can be committed of ``appends`` together; return an answer for each, never raise."""
        self.flush_s, self.events, self.bytes = None, 0, 0
        self.look()
        if self._lost:
            return _refused(appends, LogUnavailable(self._lost), stored=False)
        try:
            store = self._store or self._reopen()
            staged = store.stage(appends)
            size = store.staged_bytes
        except Exception as error:  # noqa: BLE001  one group must not end the thread for all others
            self._drop(error)
            return _refused(appends, error, stored=False)
        began = time.perf_counter()
        try:
            store.commit()
        except Exception as error:  # noqa: BLE001
            self._drop(error)
            stored = self._look_for(staged, error)
            if not stored:
                return _refused(appends, error, stored=stored)
        finally:
            self.flush_s = time.perf_counter() - began
        self._tell(None)
        self.events, self.bytes = sum(len(append.events) for append in staged), size
        self._position += self.events
        return staged

    def look(self, *, now: bool = False) -> None:
        """See, once a second or ``now``, whether the names of the log still lead to its files."""
        if self._lost or not (now or time.monotonic() >= self._look_at):
            return
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        self._lost = self._files.lost(self._path)
        if self._lost:
            self._tell(self._lost)
            if self._store is not None:
                with suppress(Exception):
                    self._store.retire()

    def place(self) -> None:
        """Give the indexes what they lack, if that is much. Nobody's answer depends on it."""
        self._tidy(Store.place)

    def checkpoint(self) -> None:
        """Empty the WAL into the file."""
        self.look()
        self._tidy(Store.checkpoint)

    def probe(self) -> None:
        """Try whether a store that failed works again."""
        self.look()
        if self._lost:
            return
        try:
            store = self._store or self._reopen()
            store.settle()
        except Exception as error:  # noqa: BLE001
            self._drop(error)
        else:
            self._tell(None)

    def close(self) -> None:
        """Release the file; what lies under its names instead of it is left alone."""
        self.look(now=True)
        if self._store is not None:
            (self._store.give_up if self._lost else self._store.close)()

    def _tidy(self, work: Callable[[Store], None]) -> None:
        if self._store is not None and not self._lost:
            try:
                work(self._store)
            except Exception as error:  # noqa: BLE001  as after a commit that failed
                self._drop(error)

    def _look_for(self, staged: Sequence[Staged], error: Exception) -> bool | None:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in NEVER_STORED:
            return False
        appends = [append.events for append in staged if append.events]
        try:
            store = self._reopen(expecting=sum(map(len, appends)))
            return bool(appends) and all(store.holds(events) for events in appends)
        except Exception as again:  # noqa: BLE001
            self._drop(again)
            return None

    def _reopen(self, *, expecting: int = 0) -> Store:
        if time.monotonic() < self._retry_at:
            raise LogUnavailable(self.unavailable or "the store failed")
        self._retry_at = time.monotonic() + RETRY_INTERVAL_S
        self.look(now=True)
        if self._lost:
            raise LogUnavailable(self._lost)
        store = self._store = Store(self._path, create=False)
        if store.position < self._position:
            raise LogUnavailable(f"the file ends at {store.position}, before {self._position}")
        if store.position not in {self._position, self._position + expecting}:
            self._position = store.position
            self.resumed = Resumed(store.position, store.last_of)
        self._retry_at = 0.0
        self._files = store.files
        return store

    def _tell(self, unavailable: str | None) -> None:
        """Say it when it begins, and when it is over: whoever waits for the log says nothing of it."""
        if unavailable and not self.unavailable:
            diagnostics.error("log cannot be written", reason=unavailable)
        elif self.unavailable and not unavailable:
            diagnostics.info("log can be written again")
        self.unavailable = unavailable

    def _drop(self, error: Exception) -> None:
        self._tell(_reason(error))
        store, self._store = self._store, None
        if store is not None:
            with suppress(sqlite3.Error):  # it fails, which is why it is given up
                store.give_up()


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, LogUnavailable) else str(error) or repr(error)


def _refused(appends: Sequence[Append], error: Exception, *, stored: bool | None) -> list[Staged]:
    return [Staged(LogUnavailable(_reason(error), stored=stored), ()) for _ in appends]
