"""How often a value lay between which bounds: what a histogram of Prometheus is made of."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

# Seconds. Four bounds to a power of ten where a promise is measured, two elsewhere.
FLUSHES_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
REQUESTS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
STEPS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 86_400.0)
# Appends of one commit.
GROUPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class Histogram:
    """Counts values by the least bound that they do not pass. The library's own takes a lock for each."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value``, as often as it was met."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound as Prometheus writes it, with how many values were no greater."""
        return list(zip(self._names(), map(float, accumulate(self.counts)), strict=True))

    def _names(self) -> Iterator[str]:
        yield from (repr(float(bound)) for bound in self.bounds)
        yield "+Inf"
