"""What the load must not do, and what of it is measured but not judged."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from tests.bench.rounds import middle
from tests.load.phases import AGAIN, ALL, SLOW, SLOW_BYTES_PER_S, UNLOADED, Found
from tests.load.rise import Rise, rise
from tests.load.samples import KIB, MIB, Sample

IDLE_KIB_MAX = 10  # of a watcher; README: 7
SLOW_KIB_MAX = 384  # of a reader: the stretch it is in, 256 KiB of frames, and 96 KiB under way to the kernel
SLOW_KERNEL_KIB_MAX = 256
OTHER_MIB_MAX = 96  # 64 of garbage until it is collected, 8 of the newest events, and what grows once
P99_RATIO_MAX = 2.0
RISE_KIB_PER_MIN_MAX = 192  # 270 MiB a day; what may be more is taken for a leak
CALM_CORES = 0.5  # that others may use in a window that tells something about latency
CALM_WINDOWS = 10
FILES_MORE_MAX = 16  # the readers of the log and the views that come with use
THREADS_MORE_MAX = 8


class Ratio(Struct, frozen=True):
    """Medians of the windows' p50 and p99, loaded and not, of so many ``windows`` each."""

    p50_ms: float
    p50_unloaded_ms: float
    p99_ms: float
    p99_unloaded_ms: float
    windows: tuple[int, int]

    @property
    def p99(self) -> float:
        return self.p99_ms / self.p99_unloaded_ms


def ratio(found: Found, *, calm: bool) -> Ratio | None:
    """Compare ``all of it`` with what came before and after; ``calm``: in windows that others left alone."""
    sides = found.phase(ALL), found.phase(UNLOADED, AGAIN)
    if calm:
        sides = tuple([each for each in side if each.other_cores <= CALM_CORES] for side in sides)
        if min(map(len, sides)) < CALM_WINDOWS:
            return None
    loaded, unloaded = sides
    return Ratio(
        middle([each.p50_ms for each in loaded]), middle([each.p50_ms for each in unloaded]),
        middle([each.p99_ms for each in loaded]), middle([each.p99_ms for each in unloaded]),
        (len(loaded), len(unloaded)),
    )  # fmt: skip


def rss_rise(found: Found) -> Rise | None:
    """Return by how much the memory rises in ``all of it``, in KiB a minute; None if that was too short."""
    return rise((each.at_s, each.rss_bytes / KIB) for each in found.phase(ALL))


def rss_mib_max(found: Found) -> float:
    """Return what the service may take with everybody there."""
    size = found.size
    unloaded = max(each.rss_bytes for each in found.phase(UNLOADED)) / MIB
    return unloaded + (size.idle * IDLE_KIB_MAX + size.slow * SLOW_KIB_MAX) / KIB + OTHER_MIB_MAX


def faults(found: Found, *, timed: bool) -> Iterator[str]:
    """Yield every bound that is broken; those of time only if ``timed``."""
    yield from _incomplete(found)
    yield from _grown(found)
    yield from _not_returned(found)
    if timed:
        yield from _late(found)


def _incomplete(found: Found) -> Iterator[str]:
    size, slow = found.size, found.slow
    if missing := sum(each.missing for each in found.samples):
        yield f"{missing} events did not come to healthy watchers"
    for who, left, came in (
        ("healthy", found.healthy_left, size.healthy),
        ("idle", found.idle_left, size.idle),
        ("slow", slow.readers, size.slow),
    ):
        if left != came:
            yield f"{left:,} of {came:,} {who} watchers are left (last close code {slow.code})"
    if slow.gaps or slow.events < size.slow:
        yield f"slow readers met {slow.gaps} gaps in {slow.events:,} events"
    if {each.streams for each in found.phase(ALL)} != {size.streams}:
        yield f"the service does not count {size.streams:,} streams"


def _grown(found: Found) -> Iterator[str]:
    size = found.size
    idle_kib = found.idle_kib_each - 2 * KIB / size.idle  # 2 MiB that are of something else
    if idle_kib > IDLE_KIB_MAX:
        yield f"an idle watcher takes {found.idle_kib_each:.1f} KiB, more than {IDLE_KIB_MAX}"
    most = max(each.rss_bytes for each in found.samples) / MIB
    if most > rss_mib_max(found):
        yield f"RSS came to {most:.0f} MiB, more than {rss_mib_max(found):.0f}"
    # The figure is of the whole machine: what others had before is theirs.
    tcp = (max(each.tcp_bytes for each in found.phase(SLOW, ALL)) - found.empty.tcp_bytes) / KIB
    if tcp > size.slow * SLOW_KERNEL_KIB_MAX + OTHER_MIB_MAX * KIB:
        yield f"the kernel holds {tcp / size.slow:.0f} KiB of each slow reader"
    if (risen := rss_rise(found)) and risen.most > RISE_KIB_PER_MIN_MAX:
        yield f"RSS rises by {risen} KiB a minute: that it is at most {RISE_KIB_PER_MIN_MAX} is not shown"


def _not_returned(found: Found) -> Iterator[str]:
    before, after = found.empty, found.empty_again
    if after.streams:
        yield f"{after.streams} streams are open when everybody has left"
    if after.files > before.files + FILES_MORE_MAX:
        yield f"{after.files} files are open when everybody has left, {before.files} were before"
    if after.threads > before.threads + THREADS_MORE_MAX:
        yield f"{after.threads} threads are left, {before.threads} were there before"
    most = max(each.rss_bytes for each in found.samples)
    unloaded = max(each.rss_bytes for each in found.phase(UNLOADED))
    kept_max = unloaded + OTHER_MIB_MAX * MIB + (most - unloaded) // 4
    if after.rss_bytes > kept_max:
        yield f"RSS is {after.rss_bytes / MIB:.0f} MiB when everybody has left, not under {kept_max / MIB:.0f}"


def _late(found: Found) -> Iterator[str]:
    compared = ratio(found, calm=True) or ratio(found, calm=False)
    assert compared is not None
    if compared.p99 > P99_RATIO_MAX:
        yield f"healthy p99 is {compared.p99_ms:.1f} ms, {compared.p99:.2f}x of unloaded"
    if found.slow_bytes_per_s < 0.8 * SLOW_BYTES_PER_S:
        yield f"slow readers got {found.slow_bytes_per_s:.0f} bytes a second"


def spread_of(samples: Sequence[Sample], name: str) -> tuple[float, float, float]:
    """Return the lowest, the middle and the highest of a figure."""
    values = [float(getattr(sample, name)) for sample in samples]
    return min(values), middle(values), max(values)
