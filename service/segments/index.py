"""What is sealed, in memory: so that asking for a segment that is not there costs a microsecond."""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

STREAMS_MAX = 10_000  # then those that were not asked for in the longest time are looked up again


class Place(NamedTuple):
    """A sealed stretch: which bytes of the frames file it is, and what they are recognised by."""

    first_seq: int
    last_seq: int
    at: int
    size: int
    crc: int


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
    """Those of one stream, ordered. They do not overlap, but there may be gaps."""

    __slots__ = ("columns", "end", "firsts", "lasts")

    def __init__(self, places: Iterable[Place]) -> None:
        # A tuple for each of them would take four times as much.
        self.columns = tuple(array("q") for _ in Place._fields)
        self.firsts, self.lasts = self.columns[:2]
        for place in places:
            for column, value in zip(self.columns, place, strict=True):
                column.append(value)
        self._measure(0)

    def find(self, seq: int) -> Place | None:
        at = bisect_left(self.lasts, seq)
        if at == len(self.lasts) or seq < self.firsts[at]:
            return None
        return Place(*[column[at] for column in self.columns])

    def add(self, place: Place) -> None:
        at = bisect_left(self.lasts, place.last_seq)
        if at < len(self.lasts) and self.firsts[at] <= place.last_seq:
            return
        for column, value in zip(self.columns, place, strict=True):
            column.insert(at, value)
        self._measure(self.end)

    def remove(self, place: Place) -> None:
        if self.find(place.last_seq) == place:
            at = bisect_left(self.lasts, place.last_seq)
            for column in self.columns:
                del column[at]
            self._measure(0)

    def _measure(self, end: int) -> None:
        for at in range(bisect_left(self.firsts, end + 1), len(self.firsts)):
            if self.firsts[at] != end + 1:
                break
            end = self.lasts[at]
        self.end = end
