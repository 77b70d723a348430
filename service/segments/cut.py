"""Where one stretch of a run ends and the next begins: a pure function of the run's events.

So whoever seals a run, and whenever, makes the same segments of it.
"""

from collections import deque
from collections.abc import Sequence

from service.log import Recorded
from service.wire.frames import text_header

STRETCH_EVENTS_MAX = 1_024
STRETCH_BYTES_MAX = 256 * 1024  # of frames; a larger event stands alone


class Cutter:
    """Cuts the events of one run, given in order from behind ``after``, which must be a stretch's end (or 0).

    A stretch is full once another event would not fit. What follows the last full one is a stretch of its own
    once the run's seal has come, which is in none: then ``over`` is set. A run without a full one stays rows.
    ``after`` moves on with the events.
    """

    def __init__(self, after: int, seal_type: str) -> None:
        self.after = after
        self.over = False
        self._seal_type = seal_type
        self._events: list[Recorded] = []
        self._size = 0
        self._full: deque[Sequence[Recorded]] = deque()

    @property
    def end(self) -> int:
        """Return the last seq of the stretches that have been taken."""
        return self.after - len(self._events) - sum(map(len, self._full))

    def add(self, events: Sequence[Recorded]) -> None:
        """Take the events that come next."""
        for event in events:
            assert event.seq == self.after + 1
            if event.type == self._seal_type:
                self.over = True
                if self._events and self._events[0].seq > 1:
                    self._close()
                return
            length = len(event.data)
            size = length + len(text_header(length))
            if self._size + size > STRETCH_BYTES_MAX and self._events:
                self._close()
            self._events.append(event)
            self._size += size
            self.after = event.seq
            if len(self._events) == STRETCH_EVENTS_MAX or self._size >= STRETCH_BYTES_MAX:
                self._close()

    def take(self) -> Sequence[Recorded] | None:
        """Return the next stretch, None if there is none yet."""
        return self._full.popleft() if self._full else None

    def _close(self) -> None:
        self._full.append(self._events)
        self._events = []
        self._size = 0
