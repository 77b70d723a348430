"""The one thread that writes: it commits whatever is waiting as a group, then tells the loop."""

import sys
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

from service.log.commit import RETRY_INTERVAL_S, Commits, Resumed
from service.log.store import WAL_BYTES, Append, Staged, Store

GROUP_EVENTS_MAX = 1_000  # of one commit, which everything behind it waits for
GROUP_BYTES_MAX = 1024 * 1024
SMALL_EVENTS = 16  # an append of no more goes before larger ones
WAL_BYTES_MAX = WAL_BYTES  # estimated; then it is emptied into the file, and commits wait
COMMIT_BYTES = 6 * 1024  # the last page, which every commit writes again, and what is filled of the next
ROW_BYTES = 90  # of an event beside its data, in the indexes, too
SWITCH_INTERVAL_S = 0.0005  # Python's 5 ms, waited at each of a commit's steps, is 30 ms beside a busy loop

Ticket = TypeVar("Ticket")


class Request(Append, Generic[Ticket], frozen=True, gc=False):
    """An append that waits. ``ticket`` is the caller's own and comes back with the answer."""

    ticket: Ticket


class Told(NamedTuple, Generic[Ticket]):
    """What a group came to. ``resumed`` comes before the answers in the order of things.

    ``flush_s``: what the commit took, if it came to one. ``events``, ``size``: what it stored.
    """

    resumed: Resumed | None
    answers: list[tuple[Ticket, Staged]]
    flush_s: float | None = None
    events: int = 0
    size: int = 0


class Writer(Generic[Ticket]):
    """Commits requests in groups and calls ``tell``, in its thread, after each."""

    def __init__(self, path: Path, store: Store, tell: Callable[[Told[Ticket]], None]) -> None:
        self._commits = Commits(path, store)
        self._tell = tell
        self._wal_bytes = 0
        self._queue: SimpleQueue[list[Request[Ticket]] | None] = SimpleQueue()
        self._waiting: list[Request[Ticket]] = []
        self._closing = False
        self._thread = Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def unavailable(self) -> str | None:
        """Why the store cannot be written, None when it can."""
        return self._commits.unavailable

    def put(self, requests: list[Request[Ticket]]) -> None:
        """Queue appends; their answers arrive through ``tell``."""
        self._queue.put(requests)

    def close(self) -> None:
        """Commit what is queued, then end the thread and release the file. Blocks; no ``put`` may follow."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)  # of the whole process, for as long as it lasts
        while not self._closing or self._waiting:
            self._collect()
            group = self._next_group()
            if group:
                staged = self._commits.commit(group)
                self._report([(request.ticket, done) for request, done in zip(group, staged, strict=True)])
                self._commits.place()
                self._keep_wal_short()
            elif self._commits.unavailable:
                self._commits.probe()
                self._report([])
            else:
                self._commits.look()
        self._commits.close()

    def _collect(self) -> None:
        if not self._waiting:
            try:
                self._admit(self._queue.get(timeout=RETRY_INTERVAL_S))
            except Empty:
                return
        while not self._queue.empty():
            self._admit(self._queue.get())

    def _admit(self, requests: list[Request[Ticket]] | None) -> None:
        if requests is None:
            self._closing = True
        else:
            self._waiting += requests

    def _next_group(self) -> list[Request[Ticket]]:
        group = self._waiting
        if (
            sum([len(request.events) for request in group]) > GROUP_EVENTS_MAX
            or sum([request.size for request in group]) > GROUP_BYTES_MAX
        ):
            return self._next_of_too_many()
        self._waiting = []
        return group

    def _next_of_too_many(self) -> list[Request[Ticket]]:
        # The oldest, so that none waits for ever; then the small ones, which large ones must not hold up.
        waiting = self._waiting
        order = sorted(range(len(waiting)), key=lambda n: n > 0 and len(waiting[n].events) > SMALL_EVENTS)
        events = size = count = 0
        for n in order:
            events += len(waiting[n].events)
            size += waiting[n].size
            if count and (events > GROUP_EVENTS_MAX or size > GROUP_BYTES_MAX):
                break
            count += 1
        self._waiting = [waiting[n] for n in sorted(order[count:])]
        return [waiting[n] for n in order[:count]]

    def _report(self, answers: list[tuple[Ticket, Staged]]) -> None:
        commits = self._commits
        resumed, commits.resumed = commits.resumed, None
        if resumed or answers:
            self._tell(Told(resumed, answers, commits.flush_s, commits.events, commits.bytes))

    def _keep_wal_short(self) -> None:
        self._wal_bytes += COMMIT_BYTES + self._commits.bytes + ROW_BYTES * self._commits.events
        if self._wal_bytes > WAL_BYTES_MAX:
            self._commits.checkpoint()
            self._wal_bytes = 0
