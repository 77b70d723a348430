"""Producers and watchers around a log that crashes, and what must hold of what they saw."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from service.errors import LogUnavailable, WrongExpectedSeq
from service.log import NewEvent, Recorded
from service.log.follow import follow, follow_all
from tests.simulation.disk import Disk, SimulatedLog

STREAMS = ("run/a", "run/b", "signal/a")
TYPES = ("start", "log")
EVENTS_PER_STREAM = 14


class World:
    """One seeded history. ``log_class`` and the follow functions are what a mutant replaces."""

    log_class: type[SimulatedLog] = SimulatedLog
    follow: Callable[..., AsyncIterator[Any]] = staticmethod(follow)
    follow_all: Callable[..., AsyncIterator[Any]] = staticmethod(follow_all)

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.disk = Disk()
        self.acknowledged: list[tuple[str, int, bytes]] = []
        self.processes: dict[asyncio.Task[Any], None] = {}

    async def run(self) -> None:
        self.log = self.log_class(self.disk, self.chance)
        producers = [self.produce(stream) for stream in STREAMS]
        watchers = [self.watch(self.chance.choice(STREAMS)) for _ in range(3)]
        watchers += [self.watch_all(self.chance.choice((None, {"start"}, set(TYPES)))) for _ in range(2)]
        everyone = asyncio.gather(*producers, *watchers)
        for _ in range(self.chance.randint(0, 2)):
            await asyncio.sleep(self.chance.random() * 12)
            self.crash()
        await everyone
        self.check_acknowledged()

    def crash(self) -> None:
        """End the process: the log and every call into it; who called it lives on and comes back."""
        self.log.crash()
        for process in list(self.processes):
            process.cancel()
        self.check_acknowledged()
        self.log = self.log_class(self.disk, self.chance)

    async def inside(self, coroutine: Any) -> Any:
        """Run a call into the process; None when that crashed, or when the caller gave up waiting."""
        process = asyncio.ensure_future(coroutine)
        self.processes[process] = None
        if self.chance.random() < 0.08:
            asyncio.get_running_loop().call_later(self.chance.random() * 2, process.cancel)
        await asyncio.wait([process])
        del self.processes[process]
        return None if process.cancelled() else process.result()

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.choice((0.0, 0.0, self.chance.random())))

    def check_acknowledged(self) -> None:
        stored = {(event.stream, event.seq, event.data) for event in self.disk.events}
        lost = [event for event in self.acknowledged if event not in stored]
        assert not lost, f"acknowledged and not stored: {lost}"

    # Producers: the only writer of their stream; a batch whose fate is unknown is sent again

    async def produce(self, stream: str) -> None:
        seq = -1
        while seq < EVENTS_PER_STREAM - 1:
            last = min(seq + self.chance.randint(1, 3), EVENTS_PER_STREAM - 1)
            batch = [
                NewEvent(self.type_of(number), f"{stream} {number}".encode())
                for number in range(seq + 1, last + 1)
            ]
            while not await self.inside(self.append(stream, batch, seq)):
                await self.pause()
            self.acknowledged += [(stream, seq + 1 + n, event.data) for n, event in enumerate(batch)]
            seq = last
            await self.pause()

    def type_of(self, number: int) -> str:
        # The last of each stream is of the type that some watch, so that they know when it is over.
        return "start" if number == EVENTS_PER_STREAM - 1 else self.chance.choice(TYPES)

    async def append(self, stream: str, batch: list[NewEvent], seq: int) -> bool:
        try:
            await self.log.append(stream, batch, expected_seq=seq)
        except LogUnavailable:
            return False
        except WrongExpectedSeq as wrong:
            stored = await self.log.read(stream, after=seq, limit=100)
            if [event.data for event in stored] != [event.data for event in batch]:
                raise AssertionError(f"somebody else wrote: {wrong}") from wrong
        return True

    # Watchers: they keep what they have seen, and come back with their cursor

    async def watch(self, stream: str) -> None:
        seen: list[Recorded] = []
        while len(seen) < EVENTS_PER_STREAM:
            log, page_events = self.log, self.chance.randint(1, 4)
            pages = self.follow(log, stream, after=len(seen) - 1, page_events=page_events)
            await self.inside(self.look(pages, seen, lambda: len(seen) >= EVENTS_PER_STREAM))
            assert seen == self.disk.streams.get(stream, [])[: len(seen)]
            await self.pause()

    async def watch_all(self, types: set[str] | None) -> None:
        seen: list[Recorded] = []
        total = EVENTS_PER_STREAM * len(STREAMS)

        def expected() -> list[Recorded]:
            return [event for event in self.disk.events if types is None or event.type in types]

        def finished() -> bool:
            return len(self.disk.events) == total and len(seen) >= len(expected())

        while not finished():
            after = seen[-1].position if seen else 0
            pages = self.follow_all(self.log, after=after, types=types, page_events=self.chance.randint(1, 4))
            await self.inside(self.look(pages, seen, finished))
            assert seen == expected()[: len(seen)]
            await self.pause()

    async def look(self, pages: Any, seen: list[Recorded], finished: Callable[[], bool]) -> None:
        disconnect_after = self.chance.choice((1, 2, 3, 100))
        async with aclosing(pages):
            async for page in pages:
                assert all(event in self.disk.events for event in page), "shown and not stored"
                seen += page
                disconnect_after -= 1
                if finished() or not disconnect_after:
                    break
                await self.pause()
