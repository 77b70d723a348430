"""Whether a memory rises for good, told from its floor: the least that it was in each minute."""

import random
from collections.abc import Iterable, Mapping
from statistics import median

from msgspec import Struct

WARM_UPS_MIN = (5, 10)  # what is needed only once is there by then
APART_MIN = (3, 4, 5)
BLOCK_MIN = 5  # neighbours are alike: they are drawn together
DRAWN = 1_000
MINUTES_MIN = 20  # below, the floor says nothing


class Rise(Struct, frozen=True):
    """What the floor rises in a minute, and within what that is (95 %)."""

    per_min: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.per_min:+.0f} ({self.least:+.0f} to {self.most:+.0f})"


def rise(samples: Iterable[tuple[float, float]]) -> Rise | None:
    """Return how a memory rises, given as (seconds, size); None if that was not long enough to tell.

    It is the middle of what the floor rises between minutes that are a few apart. A leak lifts nearly all of these,
    what is collected now and then lifts few, and a step that stays lifts those across it only: a straight line through
    all of it cannot tell one step from a leak, and was uncertain by more than any leak it should have found.

    It is told from minute 5 on and from minute 10 on, and the lesser counts: some warm up late, a leak never ends.
    """
    floors = _floors(samples)
    first, last = min(floors), max(floors)
    if last - first + 1 < MINUTES_MIN:
        return None
    found = [_rise({at: floors[at] for at in floors if at >= first + warm_up}) for warm_up in WARM_UPS_MIN]
    return min(found, key=lambda each: each.most)


def _rise(floors: Mapping[int, float]) -> Rise:
    rises = [
        [(floors[minute + apart] - floors[minute]) / apart for apart in APART_MIN if minute + apart in floors]
        for minute in sorted(floors)
    ]
    rises = [each for each in rises if each]
    chance = random.Random(1)
    middles = sorted(_middle(_drawn(rises, chance)) for _ in range(DRAWN))
    return Rise(_middle(rises), middles[DRAWN * 25 // 1_000], middles[DRAWN * 975 // 1_000 - 1])


def _floors(samples: Iterable[tuple[float, float]]) -> Mapping[int, float]:
    """Return the least of each minute, counted from the first."""
    floors: dict[int, float] = {}
    began_s: float | None = None
    for at_s, value in samples:
        began_s = at_s if began_s is None else began_s
        minute = int((at_s - began_s) // 60)
        floors[minute] = min(value, floors.get(minute, value))
    return floors


def _drawn(rises: list[list[float]], chance: random.Random) -> list[list[float]]:
    """Return as many, drawn at random in blocks: what another run might have shown (a bootstrap)."""
    drawn: list[list[float]] = []
    while len(drawn) < len(rises):
        start = chance.randrange(len(rises))
        drawn += [rises[(start + place) % len(rises)] for place in range(BLOCK_MIN)]
    return drawn[: len(rises)]


def _middle(rises: Iterable[list[float]]) -> float:
    return median(each for some in rises for each in some)
