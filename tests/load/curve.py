"""The curve: memory and p99 over time, as an SVG that a browser and a text editor can read."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil, log10

from tests.load.bounds import rss_rise
from tests.load.phases import Found
from tests.load.samples import MIB, Sample

WIDTH, HEIGHT, LEFT, GAP, TOP = 900, 190, 60, 45, 40
POINTS_MAX = 300
DECADES = (0.1, 1, 10, 100, 1_000, 10_000)


def curve(found: Found, machine: str) -> str:
    """Return the SVG."""
    return "\n".join(_lines(found, machine)) + "\n"


def _lines(found: Found, machine: str) -> Iterator[str]:
    samples = found.samples
    height = TOP + 3 * (HEIGHT + GAP)
    size, risen = found.size, rss_rise(found)
    title = f"{size.idle:,} idle + {size.slow:,} slow watchers + {size.runs} busy runs" + (
        f": RSS rises by {risen} KiB/min in {size.minutes:g} min" if risen else ""
    )
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 10} {height}" font-family="sans-serif" font-size="12">'
    yield f'<rect width="{LEFT + WIDTH + 10}" height="{height}" fill="white"/>'
    yield f'<text x="{LEFT}" y="16" font-size="14">{title}</text>'
    yield f'<text x="{LEFT}" y="32" fill="#666">{machine}</text>'
    rss = [each.rss_bytes / MIB for each in samples]
    most = max(ceil(max(rss) / 100) * 100, 100)
    marks = [(value, f"{value:g}") for value in range(0, most + 1, 100 if most <= 1_000 else 500)]
    yield from _panel(
        0, "RSS, MiB", samples, [value / most for value in rss], [(v / most, t) for v, t in marks]
    )
    p99 = [_decades(each.p99_ms) for each in samples]
    yield from _panel(1, "healthy p99, ms", samples, p99, [(_decades(ms), f"{ms:g}") for ms in DECADES])
    cores = [min(each.other_cores, 2.0) / 2 for each in samples]
    yield from _panel(2, "cores used by others", samples, cores, [(0, "0"), (0.5, "1"), (1, "2")])
    yield "</svg>"


def _decades(ms: float) -> float:
    return min(max((log10(max(ms, DECADES[0])) + 1) / 5, 0.0), 1.0)


def _panel(
    row: int,
    name: str,
    samples: Sequence[Sample],
    shares: Sequence[float],
    marks: Sequence[tuple[float, str]],
) -> Iterator[str]:
    top = TOP + 20 + row * (HEIGHT + GAP)
    first, last = samples[0].at_s, samples[-1].at_s

    def x(at_s: float) -> float:
        return round(LEFT + WIDTH * (at_s - first) / (last - first), 1)

    def y(share: float) -> float:
        return round(top + HEIGHT * (1 - share), 1)

    yield f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{name}</text>'
    for share, text in marks:
        yield f'<path d="M{LEFT} {y(share)}h{WIDTH}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y(share) + 4}" text-anchor="end">{text}</text>'
    bottom, ends = top + HEIGHT, [0.0, 0.0, 0.0]  # of the last text in each of the lines below
    for phase, some in groupby(samples, key=lambda each: each.phase):
        at = x(next(some).at_s)
        yield f'<path d="M{at} {top}V{bottom}" stroke="#999" stroke-dasharray="3 3"/>'
        if row == 2:
            at = min(at, LEFT + WIDTH - 90)
            line = next((number for number, end in enumerate(ends) if at > end), 0)
            yield f'<text x="{at}" y="{bottom + 14 * (line + 1)}" fill="#666">{phase}</text>'
            ends[line] = at + 8 * len(phase)
    step = ceil(len(samples) / POINTS_MAX)
    points = " ".join(
        f"{x(each.at_s)},{y(share)}" for each, share in list(zip(samples, shares, strict=True))[::step]
    )
    yield f'<polyline fill="none" stroke="#06c" stroke-width="1.5" points="{points}"/>'
