"""What is sealed, in memory: so that asking for a segment that is not there costs a microsecond."""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

STREAMS_MAX = 10_000  # then those that were not asked for in the longest time are looked up again


class Place(NamedTuple):
    """A sealed stretch, and the row that holds it."""

    first_seq: int
    last_seq: int
    row: int


class Index:
    """The sealed stretches of the streams asked for lately; ``load`` gives those of a stream, in order.

    ``load`` is called once for a stream, and its errors go to whoever asked.
    """

    def __init__(self, load: Callable[[str], Iterable[Place]]) -> None:
        self._load = load
        self._streams: OrderedDict[str, _Stretches] = OrderedDict()

    def find(self, stream: str, seq: int) -> Place | None:
        """Return the stretch that holds ``seq``."""
        return self._of(stream).find(seq)

    def end(self, stream: str) -> int:
        """Return the seq up to which everything is sealed, 0 if the first stretch is not."""
        return self._of(stream).end

    def add(self, stream: str, place: Place) -> None:
        """Take note of a stretch that has been stored; a second time changes nothing."""
        self._of(stream).add(place)

    def remove(self, stream: str, place: Place) -> None:
        """Forget a stretch; it is sealed again like one that never was."""
        self._of(stream).remove(place)

    def _of(self, stream: str) -> "_Stretches":
        found = self._streams.get(stream)
        if found is not None:
            self._streams.move_to_end(stream)
            return found
        found = _Stretches(self._load(stream))
        self._streams[stream] = found
        if len(self._streams) > STREAMS_MAX:
            self._streams.popitem(last=False)
        return found


class _Stretches:
    """Those of one stream, ordered; 24 bytes each. They do not overlap, but there may be gaps."""

    __slots__ = ("end", "firsts", "lasts", "rows")

    def __init__(self, places: Iterable[Place]) -> None:
        self.firsts = array("q")
        self.lasts = array("q")
        self.rows = array("q")
        for place in places:
            self.firsts.append(place.first_seq)
            self.lasts.append(place.last_seq)
            self.rows.append(place.row)
        self._measure(0)

    def find(self, seq: int) -> Place | None:
        at = bisect_left(self.lasts, seq)
        if at == len(self.lasts) or seq < self.firsts[at]:
            return None
        return Place(self.firsts[at], self.lasts[at], self.rows[at])

    def add(self, place: Place) -> None:
        at = bisect_left(self.lasts, place.last_seq)
        if at < len(self.lasts) and self.firsts[at] <= place.last_seq:
            return
        self.firsts.insert(at, place.first_seq)
        self.lasts.insert(at, place.last_seq)
        self.rows.insert(at, place.row)
        self._measure(self.end)

    def remove(self, place: Place) -> None:
        at = bisect_left(self.lasts, place.last_seq)
        if at < len(self.lasts) and self.rows[at] == place.row:
            del self.firsts[at], self.lasts[at], self.rows[at]
            self._measure(0)

    def _measure(self, end: int) -> None:
        for at in range(bisect_left(self.firsts, end + 1), len(self.firsts)):
            if self.firsts[at] != end + 1:
                break
            end = self.lasts[at]
        self.end = end
