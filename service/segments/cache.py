"""The segments read lately, shared by everyone who reads the same stretch."""

from collections import OrderedDict

from service.segments.segment import Segment

Key = tuple[str, int]  # stream and first seq


class Cache:
    """At most ``bytes_max`` of segments; those unused in the longest time go first."""

    def __init__(self, bytes_max: int) -> None:
        self.size = 0
        self._bytes_max = bytes_max
        self._segments: OrderedDict[Key, Segment] = OrderedDict()

    def get(self, key: Key) -> Segment | None:
        """Return the segment, None if it is not here."""
        segment = self._segments.get(key)
        if segment is not None:
            self._segments.move_to_end(key)
        return segment

    def put(self, key: Key, segment: Segment) -> None:
        """Keep ``segment``, in the place of another of its key."""
        former = self._segments.pop(key, None)
        self.size += segment.size - (0 if former is None else former.size)
        self._segments[key] = segment
        while self.size > self._bytes_max:
            _, gone = self._segments.popitem(last=False)
            self.size -= gone.size

    def __contains__(self, key: Key) -> bool:
        return key in self._segments
