"""A segment: one stretch of a run as ready WebSocket text frames, with a table of where each frame ends.

Every other form of the same events is cut out of it. It never changes, so any number of readers may share it.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from struct import Struct as Layout

from isal.isal_zlib import crc32
from msgspec import Struct

from service.log import Recorded
from service.wire.frames import JOINED_BYTES_MAX, Frames, text_frame

ENTRY_BYTES = 4
_SHORT_MAX = 125  # RFC 6455 §5.2: the header is the longer, the longer the event
_MEDIUM = 126
_seqs = Layout("<qq").pack


class Segment(Struct, frozen=True, eq=False, gc=False):
    """The step events ``first_seq`` to ``last_seq`` of a run; neither its header nor its seal.

    ``data`` is what is stored: for each event where its frame ends, little endian, 4 bytes each (``ends``,
    counted from the first frame), then the frames. Every form joins events into texts of at most
    ``JOINED_BYTES_MAX`` (a larger event alone), each given with the seq of its last.
    """

    first_seq: int
    data: bytes | memoryview
    ends: "array[int]"

    @classmethod
    def pack(cls, events: Sequence[Recorded]) -> "Segment":
        """Return the segment of ``events``, which follow each other without a gap."""
        first_seq = events[0].seq
        assert 0 < first_seq == events[-1].seq - len(events) + 1
        frames = [text_frame(event.data) for event in events]
        ends = array("I", accumulate(map(len, frames)))
        return cls(first_seq, b"".join([_little_endian(ends).tobytes(), *frames]), ends)

    @classmethod
    def stored(
        cls, stream: str, first_seq: int, last_seq: int, data: bytes | memoryview, crc: int
    ) -> "Segment | None":
        """Return the segment that was stored as ``data``, None if ``crc`` was not made from that."""
        if crc32(data, _label(stream, first_seq, last_seq)) != crc:
            return None
        ends = array("I")
        ends.frombytes(memoryview(data)[: (last_seq - first_seq + 1) * ENTRY_BYTES])
        return cls(first_seq, data, _little_endian(ends))

    def checksum(self, stream: str) -> int:
        """Return the CRC-32 over ``data``, and whose it is."""
        return crc32(self.data, _label(stream, self.first_seq, self.last_seq))

    @property
    def last_seq(self) -> int:
        """Return the seq of its last event."""
        return self.first_seq + len(self.ends) - 1

    @property
    def size(self) -> int:
        """Return the bytes that it takes in memory."""
        return len(self.data) + ENTRY_BYTES * len(self.ends)

    # What a reader of one of the events above ``after`` gets

    def text_frames(self, after: int) -> Frames:
        """Return the events with seq > ``after`` as WebSocket text frames: a view of the shared bytes."""
        ends = self.ends
        frames = memoryview(self.data)[ENTRY_BYTES * len(ends) :]
        index = self._index(after)
        seqs = range(self.first_seq, self.first_seq + len(ends))
        return Frames(frames, ends, seqs, ends[index - 1] if index else 0)

    def server_sent_events(self, after: int) -> Iterator[tuple[bytes, int]]:
        """Yield the events with seq > ``after`` as server-sent events."""
        return _joined((seq, b"id: %d\ndata: %b\n\n" % (seq, data)) for seq, data in self.payloads(after))

    def lines(self, after: int) -> Iterator[tuple[bytes, int]]:
        """Yield the events with seq > ``after``, each with a line break behind it."""
        return _joined((seq, data + b"\n") for seq, data in self.payloads(after))

    def payloads(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield seq and bytes, as they are stored, of each event with seq > ``after``."""
        data, base = bytes(self.data), ENTRY_BYTES * len(self.ends)
        index = self._index(after)
        start = base + (self.ends[index - 1] if index else 0)
        for seq, end in enumerate(self.ends[index:], self.first_seq + index):
            length = data[start + 1]
            header = 2 if length <= _SHORT_MAX else 4 if length == _MEDIUM else 10
            yield seq, data[start + header : base + end]
            start = base + end

    def _index(self, after: int) -> int:
        return min(max(after + 1 - self.first_seq, 0), len(self.ends))


def _joined(texts: Iterable[tuple[int, bytes]]) -> Iterator[tuple[bytes, int]]:
    parts: list[bytes] = []
    size = 0
    last = -1
    for seq, text in texts:
        if parts and size + len(text) > JOINED_BYTES_MAX:
            yield b"".join(parts), last
            parts, size = [], 0
        parts.append(text)
        size += len(text)
        last = seq
    if parts:
        yield b"".join(parts), last


def _label(stream: str, first_seq: int, last_seq: int) -> int:
    return crc32(stream.encode() + _seqs(first_seq, last_seq))


def _little_endian(ends: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        ends = ends[:]
        ends.byteswap()
    return ends
