"""The mistakes that a log of this kind is prone to. The simulation is worth what it catches of them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from service.log import Recorded
from tests.simulation.disk import SimulatedLog, Writer
from tests.simulation.world import World


async def replay_then_subscribe(
    log: Any, stream: str, *, after: int, page_events: int
) -> AsyncIterator[Sequence[Recorded]]:
    """Read what there is, then follow from the head as it is by then: what came in between is lost."""
    while page := await log.read(stream, after=after, limit=page_events):
        after = page[-1].seq
        yield page
    await asyncio.sleep(0)
    head = await log.wait(stream, after=-2)
    while True:
        await log.wait(stream, after=head)
        while page := await log.read(stream, after=head, limit=page_events):
            head = page[-1].seq
            yield page


async def forgotten_cursor(
    log: Any, stream: str, *, after: int, page_events: int
) -> AsyncIterator[Sequence[Recorded]]:
    """Read on from where the follower once began, after each sleep."""
    while True:
        cursor = after
        while page := await log.read(stream, after=cursor, limit=page_events):
            cursor = page[-1].seq
            yield page
            await asyncio.sleep(0)
        await log.wait(stream, after=cursor)


class LostWakeUp(SimulatedLog):
    """Looks, then lets others run, then falls asleep."""

    async def wait(self, stream: str | None, *, after: int, types: Collection[str] | None = None) -> int:
        if stream is None:
            return await super().wait(stream, after=after, types=types)
        if self._last_seq(stream) <= after:
            await asyncio.sleep(0)
            await self._tail.sleepers.sleep(stream)
        return self._last_seq(stream)


class NotifyBeforeCommit(SimulatedLog):
    """Tells of an append while it is still being written."""

    class writer_class(Writer):
        tell_before_commit = True


class TailBeyondGap(SimulatedLog):
    """Takes the cache for complete: a page may begin later than its cursor."""

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[Recorded]:
        cached = self._tail._streams.get(stream)
        if cached and cached[0].seq > after + 1:
            return cached[:limit]
        return await super().read(stream, after=after, limit=limit)


class WakesOne(SimulatedLog):
    """Wakes one of those who wait for a stream, as a condition's ``notify`` would."""

    def _take(self, told: Any) -> None:
        for futures in self._tail.sleepers._of_stream.values():
            while len(futures) > 1:
                futures.popitem()
        super()._take(told)


class BlindToTypes(SimulatedLog):
    """Wakes who waits for types only by what comes later: edge-triggered."""

    async def wait(self, stream: str | None, *, after: int, types: Collection[str] | None = None) -> int:
        if stream is None and after >= 0:
            await self._tail.sleepers.sleep_all(types)
            return self._tail.position
        return await super().wait(stream, after=after, types=types)


def _world(name: str, **replaced: Any) -> type[World]:
    return type(name, (World,), replaced)


MUTANTS = {
    "replay then subscribe": _world("ReplayThenSubscribe", follow=staticmethod(replay_then_subscribe)),
    "lost wake-up": _world("LostWakeUpWorld", log_class=LostWakeUp),
    "notify before commit": _world("NotifyBeforeCommitWorld", log_class=NotifyBeforeCommit),
    "forgotten cursor": _world("ForgottenCursor", follow=staticmethod(forgotten_cursor)),
    "tail beyond a gap": _world("TailBeyondGapWorld", log_class=TailBeyondGap),
    "wakes one": _world("WakesOneWorld", log_class=WakesOne),
    "edge-triggered types": _world("BlindToTypesWorld", log_class=BlindToTypes),
}
