"""Where segments are kept and found again: the file, what is known of it, and the segments read lately.

What the kernel has in memory is read at once; a thread waits for the disk, and reads ahead.

A failure of the file never reaches a reader: it gets None and reads rows. Whoever runs the shelf learns of
it in ``mend``.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from service.segments.cache import Cache
from service.segments.file import FAILURES, Gone, Mark, Marks, SegmentFile, drop
from service.segments.index import Index, Place
from service.segments.segment import Segment
from service.segments.worker import Worker

READ_AHEAD = 2  # segments behind the one that was asked for
READ_AHEAD_LOADS_MAX = 8  # at once; then a segment is loaded when it is asked for

diagnostics = structlog.get_logger("tailrace.segments")


class Shelf:
    """The segments of one file.

    ``ready``: readers may be served; set by whoever has compared the file with the log. ``trouble`` is called
    when ``mend`` has something to do.
    """

    worker_class: type[Worker] = Worker

    def __init__(self, path: Path, *, cache_bytes_max: int) -> None:
        self.path = path
        self.ready = False
        self.trouble: Callable[[], None] = lambda: None
        self.reads = {"memory": 0, "file": 0, "disk": 0, "rows": 0}  # by where they ended
        self.sealed = 0  # segments stored since the start
        self._reader = self.worker_class("segments-read")
        self._writer = self.worker_class("segments-write")
        self._cache = Cache(cache_bytes_max)
        self._loading: dict[tuple[str, int], asyncio.Future[Segment | Exception | None]] = {}
        self._damaged: deque[tuple[str, Place]] = deque()
        self._failure: Exception | None = None
        self._file: SegmentFile | None = None
        self._index = Index(_nothing)

    # Reading

    async def get(self, stream: str, seq: int) -> Segment | None:
        """Return the segment that holds ``seq``, None if it is not to be had."""
        place = self.find(stream, seq)
        if place is None:
            self.reads["rows"] += 1
            return None
        at_once = self._at_once(stream, place)
        if at_once is not None:
            return at_once
        loading = self._load(stream, place)
        self._read_ahead(stream, place)
        found = await asyncio.shield(loading)  # others wait for the same: who is cancelled must not end it
        segment = found if isinstance(found, Segment) else None
        self.reads["rows" if segment is None else "disk"] += 1
        return segment

    @property
    def cache_bytes(self) -> int:
        """How much is kept in memory."""
        return self._cache.size

    def _at_once(self, stream: str, place: Place) -> Segment | None:
        """Return a segment that is in memory: here or, which costs some ten microseconds, in the kernel's."""
        assert self._file is not None
        key = stream, place.first_seq
        found = self._cache.get(key)
        if found is not None:
            self.reads["memory"] += 1
        elif key not in self._loading:
            found = self._file.load_now(stream, place)
            if found is not None:
                self.reads["file"] += 1
                self._cache.put(key, found)
        return found

    def end(self, stream: str) -> int:
        """Return the seq up to which ``stream`` is sealed. Raises one of FAILURES."""
        return self._index.end(stream)

    def find(self, stream: str, seq: int) -> Place | None:
        """Return where ``seq`` is sealed, None if it is not, or not to be had."""
        if not self.ready:
            return None
        try:
            return self._index.find(stream, seq)
        except FAILURES as error:
            self._fail(error)
            return None

    def _read_ahead(self, stream: str, place: Place) -> None:
        for _ in range(READ_AHEAD):
            found = self.find(stream, place.last_seq + 1)
            if found is None or len(self._loading) >= READ_AHEAD_LOADS_MAX:
                return
            if (stream, found.first_seq) not in self._cache:
                self._load(stream, found)
            place = found

    def _load(self, stream: str, place: Place) -> "asyncio.Future[Segment | Exception | None]":
        key = stream, place.first_seq
        loading = self._loading.get(key)
        if loading is None:
            assert self._file is not None
            loading = self._loading[key] = self._reader.call(_load, self._file, stream, place)
            loading.add_done_callback(partial(self._take, stream, place))
        return loading

    def _take(self, stream: str, place: Place, loading: "asyncio.Future[Segment | Exception | None]") -> None:
        del self._loading[stream, place.first_seq]
        if loading.cancelled():
            return
        found = loading.result()
        if isinstance(found, Segment):
            self._cache.put((stream, place.first_seq), found)
        elif isinstance(found, Exception):
            self._fail(found)
        elif self.ready:
            diagnostics.error("segment does not fit its checksum", stream=stream, seq=place.first_seq)
            self._index.remove(stream, place)
            self._damaged.append((stream, place))
            self.trouble()

    def _fail(self, error: Exception) -> None:
        self.ready = False
        self._failure = error
        self.trouble()

    # Running it: all of these may raise one of FAILURES

    async def open(self) -> Marks:
        """Open the file, made if need be, and return what it was made from. Raises OSError, too."""
        self._file = await self._writer.call(SegmentFile.open, self.path)
        self._index = Index(self._file.places)
        return self._file.marks()

    async def mend(self) -> list[str]:
        """Delete what was found damaged, and return the streams that it was of.

        Raises what a reader has met, and Gone if the file has been deleted.
        """
        assert self._file is not None
        if self._failure is not None:
            raise self._failure
        if not self._file.is_there():
            raise Gone
        streams = []
        while self._damaged:
            stream, place = self._damaged.popleft()
            await self._writer.call(self._file.remove, stream, place)
            streams.append(stream)
        return streams

    async def put(self, stream: str, segment: Segment, sealed: Mark) -> None:
        """Store a segment. ``sealed``: its last event."""
        assert self._file is not None
        place = await self._writer.call(self._file.store, stream, segment, sealed)
        self._index.add(stream, place)
        self.sealed += 1

    async def remember(self, ended: Mark) -> None:
        """Remember that every run that ended up to here is sealed."""
        assert self._file is not None
        await self._writer.call(self._file.remember, ended)

    async def close(self, *, for_good: bool = False) -> None:
        """Release the file, if it is open; ``for_good``: and the threads."""
        self.ready = False
        self._failure = None
        self._damaged.clear()
        self._index = Index(_nothing)
        file, self._file = self._file, None
        if file is not None:
            await self._reader.call(_nothing, "")  # what it was told to load has been loaded
            await self._writer.call(file.close)
        if for_good:
            self._reader.close()
            self._writer.close()

    async def drop(self) -> None:
        """Remove the file, which must be closed. Raises OSError."""
        await self._writer.call(drop, self.path)


def _load(file: SegmentFile, stream: str, place: Place) -> Segment | Exception | None:
    try:
        return file.load(stream, place)
    except OSError as error:
        return error


def _nothing(_: str) -> list[Place]:
    return []
