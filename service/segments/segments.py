"""The segments of a log: what readers ask, and the part of the service that seals in the background."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

from service.errors import Damaged, LogUnavailable
from service.log import Log
from service.segments.file import FAILURES, Mark, is_damage
from service.segments.sealer import RETRY_S, Sealer
from service.segments.segment import Segment
from service.segments.shelf import Shelf

# Of segments read lately, all runs together: for those who read the same at the same time. The file itself
# is in the kernel's memory, from where it costs little more; to touch fresh memory of our own costs more.
CACHE_BYTES_MAX = 2 * 1024 * 1024

diagnostics = structlog.get_logger("tailrace.segments")


class Segments:
    """Sealed stretches of the runs of ``log``; ``run`` makes them.

    Nothing here raises what the file does, or waits for it longer than one load: without a segment a reader
    reads rows.
    """

    def __init__(self, log: Log, shelf: Shelf, sealer: Sealer, now: Callable[[], float]) -> None:
        self._log = log
        self._shelf = shelf
        self._sealer = sealer
        self._now = now
        self._began_at = float("-inf")  # the last time that the file had to be opened again

    @classmethod
    def open(
        cls,
        path: Path,
        log: Log,
        *,
        seal_type: str,
        room: Callable[[], bool] = lambda: True,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        now: Callable[[], float] = monotonic,
    ) -> "Segments":
        """Return the segments kept in ``path``, a file of their own that can be deleted at any time.

        ``seal_type``: of the event that ends a run and is in no segment. ``room`` tells whether the disk has
        space to spare; while it has not, nothing is sealed. ``now`` is a monotonic clock in seconds.
        Nothing is opened before ``run``.
        """
        shelf = Shelf(path, cache_bytes_max=cache_bytes_max)
        return cls(log, shelf, Sealer(log, shelf, seal_type=seal_type, room=room, now=now), now)

    async def after(self, stream: str, after: int) -> Segment | None:
        """Return the segment that holds the event behind ``after``, None if it must be read as rows.

        That is so before ``run`` has compared the file with the log, and whenever the file fails.
        """
        return await self._shelf.get(stream, after + 1)

    def wanted(self, stream: str, after: int) -> None:
        """Take note that somebody had to read rows behind ``after``, far from the end of ``stream``."""
        if self._shelf.ready and self._shelf.find(stream, after + 1) is None:
            self._sealer.want(stream)

    def figures(self) -> dict[str, int]:
        """Return what it has read from where (memory, file, disk, rows), has sealed, and holds."""
        shelf = self._shelf
        return {
            **shelf.reads,
            "sealed": shelf.sealed,
            "cache_bytes": shelf.cache_bytes,
            "pending": self._sealer.pending,
        }

    async def run(self) -> None:
        """Seal in the background until cancelled: waits while a file fails, and makes a damaged one again."""
        while True:
            try:
                position = await self._compared()
                self._shelf.ready = True
                await self._sealer.run(position)
            except LogUnavailable as error:
                await self._begin_again(error, dropping=False)
            except OSError as error:
                await self._begin_again(error, dropping=False)
            except FAILURES as error:
                await self._begin_again(error, dropping=is_damage(error))

    async def close(self) -> None:
        """Release the file. ``run`` must have ended; afterwards there are no segments any more."""
        await self._shelf.close(for_good=True)

    async def _compared(self) -> int:
        """Open the file, see that this log is what it was made from, and return up to where it is sealed."""
        marks = await self._shelf.open()
        for mark in (marks.sealed, marks.ended):
            if not await self._is_in_log(mark):
                diagnostics.warning("segments are made again: the log does not hold what they were made from")
                await self._shelf.close()
                await self._shelf.drop()
                marks = await self._shelf.open()
                break
        return marks.ended.position

    async def _is_in_log(self, mark: Mark) -> bool:
        if mark.position == 0:
            return True
        try:
            page = await self._log.read_all(after=mark.position - 1, limit=1)
        except Damaged as error:
            return (error.stream, error.seq) == (mark.stream, mark.seq)
        return bool(page) and Mark.at(page[0]) == mark

    async def _begin_again(self, error: Exception, *, dropping: bool) -> None:
        await self._shelf.close()
        now = self._now()
        again_soon, self._began_at = now - self._began_at < 2 * RETRY_S, now
        if dropping:
            diagnostics.warning("segments are made again from the log", reason=str(error))
            try:
                await self._shelf.drop()
            except OSError as again:
                diagnostics.warning("segments cannot be dropped", reason=str(again))
        elif not again_soon:
            diagnostics.warning("no segments for now", reason=str(error))
        if again_soon or not dropping:
            await asyncio.sleep(RETRY_S)
