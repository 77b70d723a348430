"""A disk that commits when the seed says so, and the log that runs on it.

The log is the real SqliteLog with the real Tail; only its thread and its SQL are replaced.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import Appended, Recorded, chain_next, chain_seed
from service.log.commit import Resumed
from service.log.room import Room
from service.log.sqlite import APPENDS_WAITING_MAX, SqliteLog
from service.log.store import Append, Staged
from service.log.tail import Tail
from service.log.writer import Request, Told


class Disk:
    """What survives a crash."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.streams: dict[str, list[Recorded]] = {}

    def commit(self, events: list[Recorded]) -> None:
        for event in events:
            assert event.position == len(self.events) + 1
            self.events.append(event)
            self.streams.setdefault(event.stream, []).append(event)

    def last_of_types(self) -> dict[str, int]:
        return {event.type: event.position for event in self.events}


class Reader:
    """Reads what is committed and visible."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def page(self, stream: str, *, after: int, limit: int, upto: int) -> list[Recorded]:
        events = self.disk.streams.get(stream, [])
        return [event for event in events[after + 1 :] if event.position <= upto][:limit]

    def page_all(self, *, after: int, limit: int, types: Any, upto: int) -> list[Recorded]:
        events = self.disk.events[after:upto]
        return [event for event in events if types is None or event.type in types][:limit]

    def last_seq(self, stream: str, *, upto: int) -> int:
        return sum(event.position <= upto for event in self.disk.streams.get(stream, ())) - 1


class Writer:
    """Commits a group after a while, tells after another; now and then a commit fails."""

    tell_before_commit = False

    def __init__(self, disk: Disk, chance: random.Random, take: Callable[[Told[Any]], None]) -> None:
        self.disk = disk
        self.chance = chance
        self.take = take
        self.unavailable: str | None = None
        self.dead = False
        self.busy = False
        self.waiting: list[Request[Any]] = []
        self.told = len(disk.events)

    def put(self, requests: list[Any]) -> None:
        self.waiting += requests
        self.next()

    def crash(self) -> None:
        self.dead = True

    def later(self, step: Callable[..., None], *values: Any) -> None:
        delay = self.chance.choice((0.0, 0.0, self.chance.random()))
        asyncio.get_running_loop().call_later(delay, self.if_alive, step, *values)

    def if_alive(self, step: Callable[..., None], *values: Any) -> None:
        if not self.dead:
            step(*values)

    def next(self) -> None:
        if self.waiting and not self.busy:
            self.busy = True
            self.later(self.stage)

    def stage(self) -> None:
        count = self.chance.randint(1, len(self.waiting))
        group, self.waiting = self.waiting[:count], self.waiting[count:]
        staged: list[Recorded] = []
        answers = [(request.ticket, self.staged(request, staged)) for request in group]
        if self.tell_before_commit:
            self.later(self.tell, answers)
        self.later(self.commit, answers, staged)

    def staged(self, append: Append, before: list[Recorded]) -> Staged:
        stream, events, expected_seq = append.stream, append.events, append.expected_seq
        there = [*self.disk.streams.get(stream, ()), *(event for event in before if event.stream == stream)]
        if len(there) - 1 != expected_seq:
            return Staged(WrongExpectedSeq(stream, expected_seq, len(there) - 1), ())
        chain = there[-1].chain if there else chain_seed(stream)
        new: list[Recorded] = []
        for event in events:
            chain = chain_next(chain, event.data)
            position = len(self.disk.events) + len(before) + len(new) + 1
            seq = len(there) + len(new)
            new.append(Recorded(stream, seq, position, event.type, event.data, crc32(event.data), chain))
        before += new
        return Staged(Appended(new[-1].seq, new[-1].position, chain), new)

    def commit(self, answers: list[tuple[Any, Staged]], staged: list[Recorded]) -> None:
        outcome = self.chance.choices(("stored", "refused", "unknown", "unknown but stored"), (94, 2, 2, 2))[
            0
        ]
        if "stored" in outcome:
            self.disk.commit(staged)
        if outcome != "stored":
            known = False if outcome == "refused" else None
            error = LogUnavailable(outcome, stored=known)
            answers = [(ticket, Staged(error, ())) for ticket, _ in answers]
        if not self.tell_before_commit:
            self.later(self.tell, answers)
        else:
            self.busy = False
            self.next()

    def tell(self, answers: list[tuple[Any, Staged]]) -> None:
        told = sum(len(staged.events) for _, staged in answers)
        resumed = None
        if not self.tell_before_commit and self.told + told != len(self.disk.events):
            resumed = Resumed(len(self.disk.events), self.disk.last_of_types())
            told = resumed.position - self.told
        self.told += told
        self.take(Told(resumed, answers))
        if not self.tell_before_commit:
            self.busy = False
            self.next()


class SimulatedLog(SqliteLog):
    """A process's log on a disk; crash it and open another one on the same disk."""

    writer_class = Writer

    def __init__(self, disk: Disk, chance: random.Random) -> None:
        self._chance = chance
        self._reader = Reader(disk)  # type: ignore[assignment]
        self._tail = Tail(len(disk.events), disk.last_of_types(), bytes_max=chance.choice((0, 1_000, 8_000)))
        self._room = Room(chance.choice((1, 3, APPENDS_WAITING_MAX)))
        self._loop = None
        self._closed = False
        self._requests = []
        self._turn_at = 0.0
        self._meter = None
        self._writer: Any = self.writer_class(disk, chance, self._take)

    def crash(self) -> None:
        self._writer.crash()

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[Recorded]:
        page = await super().read(stream, after=after, limit=limit)
        await self.lag()
        return page

    async def read_all(self, *, after: int, limit: int, types: Any = None) -> Sequence[Recorded]:
        page = await super().read_all(after=after, limit=limit, types=types)
        await self.lag()
        return page

    async def lag(self) -> None:
        """Answer late, as a log in another thread or on another machine does."""
        if self._chance.random() < 0.5:
            await asyncio.sleep(self._chance.random() / 2)
