"""Rounds that alternate between the sides (A B A B …), and what is made of their figures."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from msgspec import Struct

Result = TypeVar("Result")


class Scale(Struct, frozen=True):
    """How much is measured: ``size`` scales what a row does, ``rounds`` how often, within ``row_s`` a row."""

    rounds: int
    row_s: float
    quick: bool = False
    large: bool = False

    def of(self, full: int, quick: int, large: int | None = None) -> int:
        if self.large and large is not None:
            return large
        return quick if self.quick else full


FULL = Scale(rounds=5, row_s=20.0)
LARGE = Scale(rounds=5, row_s=30.0, large=True)
QUICK = Scale(rounds=1, row_s=20.0, quick=True)


def interleaved(
    scale: Scale, sides: Mapping[str, Callable[[], Result]], *, row_s: float | None = None
) -> dict[str, list[Result]]:
    """Call every side once a round; no new round begins that the row's time would not suffice for."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    began = time.monotonic()
    for number in range(scale.rounds):
        spent = time.monotonic() - began
        if number and spent * (number + 1) / number > (row_s or scale.row_s):
            break
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return median(values)


def spread(values: Sequence[float]) -> str:
    """Return the lowest and the highest figure of the rounds."""
    return f"{min(values):,.0f}–{max(values):,.0f} in {len(values)} rounds"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` (0…1) of the values do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def tell(text: str) -> None:
    """Say on stderr what is going on: stdout holds the table alone."""
    print(text, file=sys.stderr, flush=True)
