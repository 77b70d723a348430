"""A Log in memory: the model that the others are compared with. What it holds ends with the process."""

import asyncio
from collections.abc import Collection, Sequence
from zlib import crc32

from service.errors import WrongExpectedSeq
from service.log import Appended, NewEvent, Recorded, chain_next, chain_seed
from service.log.checks import check_append
from service.log.tail import Sleepers


class MemoryLog:
    """Implements Log with one list per stream and one of everything."""

    unavailable: str | None = None

    def __init__(self) -> None:
        self._streams: dict[str, list[Recorded]] = {}
        self._all: list[Recorded] = []
        self._last_of: dict[str, int] = {}
        self._sleepers = Sleepers()

    async def append(self, stream: str, events: Sequence[NewEvent], *, expected_seq: int) -> Appended:
        """Append at the loop's next turn."""
        check_append(events)
        await asyncio.sleep(0)
        recorded = self._streams.get(stream, [])
        if len(recorded) - 1 != expected_seq:
            raise WrongExpectedSeq(stream, expected_seq, len(recorded) - 1)
        chain = recorded[-1].chain if recorded else chain_seed(stream)
        new: list[Recorded] = []
        for seq, event in enumerate(events, start=len(recorded)):
            chain = chain_next(chain, event.data)
            new.append(
                Recorded(
                    stream,
                    seq,
                    len(self._all) + len(new) + 1,
                    event.type,
                    event.data,
                    crc32(event.data),
                    chain if len(new) + 1 == len(events) else b"",
                )
            )
        self._streams.setdefault(stream, []).extend(new)
        self._all += new
        self._last_of.update((event.type, event.position) for event in new)
        self._sleepers.wake(new)
        return Appended(new[-1].seq, new[-1].position, chain)

    async def read(self, stream: str, *, after: int, limit: int) -> Sequence[Recorded]:
        """Return a slice of the stream."""
        start = max(after + 1, 0)
        return self._streams.get(stream, [])[start : start + limit]

    async def read_all(
        self, *, after: int, limit: int, types: Collection[str] | None = None
    ) -> Sequence[Recorded]:
        """Return a slice of everything, selected first."""
        start = max(after, 0)
        if types is None:
            return self._all[start : start + limit]
        return [event for event in self._all[start:] if event.type in types][:limit]

    async def wait(self, stream: str | None, *, after: int, types: Collection[str] | None = None) -> int:
        """Sleep, or when there is something already, only let the others have a turn."""
        if stream is not None:
            if len(self._streams.get(stream, ())) - 1 <= after:
                await self._sleepers.sleep(stream)
            else:
                await asyncio.sleep(0)
            return len(self._streams.get(stream, ())) - 1
        last = len(self._all) if types is None else max((self._last_of.get(t, 0) for t in types), default=0)
        if last <= after:
            await self._sleepers.sleep_all(types)
        else:
            await asyncio.sleep(0)
        return len(self._all)

    async def close(self) -> None:
        """Nothing to release."""
