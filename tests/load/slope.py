"""The straight line through a series of samples, and how sure its slope is."""

from collections.abc import Sequence
from math import sqrt

from msgspec import Struct

WORTH_MIN = 4.0


class Slope(Struct, frozen=True):
    """What the line rises in a unit of x, give or take ``confidence`` (95 %)."""

    per_x: float
    confidence: float

    @property
    def least(self) -> float:
        """The rise that there is at least."""
        return self.per_x - self.confidence


def slope(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """Fit by least squares.

    Samples of a memory follow one another: a step up stays. What is left over once the line is taken away is
    then no noise around it, so the samples count for fewer, by how much each one resembles the one before.
    """
    count = len(xs)
    assert count == len(ys) >= 4, "too few samples for a line"
    x_mean, y_mean = sum(xs) / count, sum(ys) / count
    x_square = sum((x - x_mean) ** 2 for x in xs)
    per_x = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / x_square
    left = [y - y_mean - per_x * (x - x_mean) for x, y in zip(xs, ys, strict=True)]
    square = sum(each**2 for each in left)
    if square == 0:
        return Slope(per_x, 0.0)
    alike = sum(one * other for one, other in zip(left, left[1:], strict=False)) / square
    alike = min(max(alike, 0.0), 0.99)
    free = max(count * (1 - alike) / (1 + alike), WORTH_MIN) - 2
    return Slope(per_x, _student(free) * sqrt(square / free / x_square))


def _student(free: float) -> float:
    """Return what 95 % of the values stay within, of Student's distribution of so many degrees of freedom."""
    return 1.96 + 2.37 / free + 2.82 / free**2 + 2.56 / free**3
