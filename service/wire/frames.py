"""Framing of stored events, many at once; the bytes between the headers are never looked at.

A server's text frame (RFC 6455 §5.2) is unmasked: a header of 2, 4 or 10 bytes, then the event.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from service.log import Recorded

JOINED_BYTES_MAX = 48 * 1024  # of one write; a larger frame stands alone

_FIN_TEXT = b"\x81"
_SHORT_MAX = 125
_MEDIUM_MAX = 0xFFFF


def text_header(length: int) -> bytes:
    """Return the header of an unmasked, unfragmented text frame whose payload has ``length`` bytes."""
    if length <= _SHORT_MAX:
        return _FIN_TEXT + length.to_bytes(1, "big")
    if length <= _MEDIUM_MAX:
        return _FIN_TEXT + b"\x7e" + length.to_bytes(2, "big")
    return _FIN_TEXT + b"\x7f" + length.to_bytes(8, "big")


_HEADERS = [text_header(length) for length in range(4096)]  # nearly every event: a look-up, not arithmetic


def text_frame(data: bytes) -> bytes:
    """Return ``data`` as one WebSocket text frame."""
    length = len(data)
    return (_HEADERS[length] if length < len(_HEADERS) else text_header(length)) + data


class Frames:
    """Text frames in one piece, on their way to one client: the first ``at`` bytes of ``data`` have gone.

    ``ends``: where in ``data`` each frame ends. ``seqs``: behind which seq a client goes on that has it.
    """

    __slots__ = ("at", "data", "ends", "seqs")

    def __init__(self, data: memoryview, ends: Sequence[int], seqs: Sequence[int], at: int = 0) -> None:
        self.data = data
        self.ends = ends
        self.seqs = seqs
        self.at = at

    @classmethod
    def of(cls, texts: Iterable[bytes], seqs: Sequence[int]) -> "Frames":
        """Return ``texts``, each in a frame."""
        frames = [text_frame(text) for text in texts]
        return cls(memoryview(b"".join(frames)), list(accumulate(map(len, frames))), seqs)

    def __len__(self) -> int:
        """Return how many bytes have still to go."""
        return len(self.data) - self.at

    def left(self) -> memoryview:
        """Return the bytes that have still to go."""
        return self.data[self.at :]

    def piece(self) -> memoryview:
        """Return what goes next, up to a frame's end: at most ``JOINED_BYTES_MAX``, or one larger frame."""
        begun = bisect_right(self.ends, self.at)
        upto = max(bisect_right(self.ends, self.at + JOINED_BYTES_MAX, begun), begun + 1)
        return self.data[self.at : self.ends[upto - 1]]

    def after(self) -> int | None:
        """Return the seq of the last frame that has gone to its end, None if there is none."""
        gone = bisect_right(self.ends, self.at)
        return self.seqs[gone - 1] if gone else None


def server_sent_event(event: Recorded) -> bytes:
    """Return ``event`` as an unnamed server-sent event with its seq as the id.

    Its JSON must hold no line break, as every encoded event does.
    """
    return b"id: %d\ndata: %b\n\n" % (event.seq, event.data)


def text_frames(events: Sequence[Recorded]) -> Iterator[tuple[bytes, int]]:
    """Yield the events' text frames joined, each with the seq of its last event."""
    if len(events) == 1:
        return iter(((text_frame(events[0].data), events[0].seq),))
    return _joined(events, (text_frame(event.data) for event in events))


def server_sent_events(events: Sequence[Recorded]) -> Iterator[tuple[bytes, int]]:
    """Yield the server-sent events joined, each with the seq of its last event."""
    return _joined(events, map(server_sent_event, events))


def lines(events: Sequence[Recorded]) -> Iterator[tuple[bytes, int]]:
    """Yield the events joined, each with a line break behind it, each text with the seq of its last event."""
    return _joined(events, (event.data + b"\n" for event in events))


def _joined(events: Sequence[Recorded], frames: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    parts: list[bytes] = []
    size = 0
    last = -1
    for event, frame in zip(events, frames, strict=True):
        if parts and size + len(frame) > JOINED_BYTES_MAX:
            yield b"".join(parts), last
            parts, size = [], 0
        parts.append(frame)
        size += len(frame)
        last = event.seq
    if parts:
        yield b"".join(parts), last
