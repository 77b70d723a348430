"""``python -m tests.load [--minutes N] [--json FILE] [--curve FILE] [--quick]``: the load, one table, its faults."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import to_builtins
from msgspec.structs import replace

from tests.load.bounds import RISE_KIB_PER_MIN_MAX, Ratio, faults, ratio, rss_mib_max, rss_rise, spread_of
from tests.load.curve import curve
from tests.load.phases import FULL, QUICK, Found, load
from tests.load.rise import MINUTES_MIN
from tests.load.samples import MIB, Sample

PLACE = Path(__file__).parent.parent.parent / ".cache" / "load"  # a disk, not a /tmp in memory


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/load", description=__doc__)
    parser.add_argument("--minutes", type=float, help="that everybody stays (2; 30 for the soak)")
    parser.add_argument(
        "--windows", type=int, help="of 5 s in each of the other phases (12), which tell what unloaded means"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="draw them there, as SVG")
    parser.add_argument(
        "--quick", action="store_true", help="a thirtieth of everybody, and no time is judged"
    )
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    size = replace(size, minutes=asked.minutes or size.minutes, windows=asked.windows or size.windows)
    PLACE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=PLACE) as directory:
        found = load(size, Path(directory))
    machine = (
        f"{os.cpu_count()} cores shared by service, clients and others; Python {platform.python_version()}, "
        f"Linux {platform.release().split('-')[0]}"
    )
    broken = list(faults(found, timed=not asked.quick))
    if asked.json:
        told = {"machine": machine, "faults": broken, "rss_rise": to_builtins(rss_rise(found))}
        asked.json.write_text(json.dumps(told | to_builtins(found), indent=1) + "\n")
    if asked.curve:
        asked.curve.write_text(curve(found, machine))
    print("\n".join(report(found, machine)))
    for fault in broken:
        print(f"FAULT: {fault}")
    print(_last_line(found, broken))
    return int(bool(broken))


def report(found: Found, machine: str) -> Iterator[str]:
    """Yield the table: a line for each phase, lowest – middle – highest, and what follows from it."""
    yield f"\n{machine}\n"
    yield "| phase | windows | streams | RSS, MiB | kernel TCP, MiB | files | threads | deliveries/s | p50, ms | p99, ms | cores | others' cores | log, MiB |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    yield _line("empty", [found.empty])
    for phase, some in groupby(found.samples, key=lambda sample: sample.phase):
        yield _line(phase, list(some))
    yield _line("empty again", [found.empty_again])
    size, slow = found.size, found.slow
    yield f"\nidle watcher: {found.idle_kib_each:.1f} KiB each, {found.idle_left:,} of {size.idle:,} left at the end"
    yield (
        f"slow readers: {found.slow_bytes_per_s:.0f} bytes/s each, {slow.readers:,} of {size.slow:,} left, "
        f"{slow.events:,} events, {slow.gaps} gaps"
    )
    most = max(sample.rss_bytes for sample in found.samples) / MIB
    yield f"RSS at most {most:.0f} MiB, bound {rss_mib_max(found):.0f} MiB"
    if risen := rss_rise(found):
        yield f"RSS rises by {risen} KiB a minute (95 %), bound {RISE_KIB_PER_MIN_MAX}"
    else:
        yield f"RSS: whether it rises, {MINUTES_MIN} minutes could tell"
    for name, compared in (("all", ratio(found, calm=False)), ("calm", ratio(found, calm=True))):
        yield f"healthy, {name} windows: {_compared(compared)}"


def _compared(found: Ratio | None) -> str:
    if found is None:
        return "too few"
    return (
        f"p50 {found.p50_ms:.2f} ms, unloaded {found.p50_unloaded_ms:.2f} ms; p99 {found.p99_ms:.1f} ms, "
        f"unloaded {found.p99_unloaded_ms:.1f} ms: {found.p99:.2f}x ({found.windows[0]} and {found.windows[1]} windows)"
    )


def _line(phase: str, samples: list[Sample]) -> str:
    def cell(name: str, form: str, unit: float = 1) -> str:
        values = [format(value / unit, form) for value in spread_of(samples, name)]
        return values[0] if len(set(values)) == 1 else " – ".join(values)

    cells = [
        cell("streams", ",.0f"), cell("rss_bytes", ",.0f", MIB), cell("tcp_bytes", ",.0f", MIB), cell("files", ",.0f"),
        cell("threads", ",.0f"), cell("events_per_s", ",.0f"), cell("p50_ms", ".2f"), cell("p99_ms", ",.1f"),
        cell("cores", ".2f"), cell("other_cores", ".2f"), cell("log_bytes", ",.0f", MIB),
    ]  # fmt: skip
    return f"| {phase} | {len(samples)} | {' | '.join(cells)} |"


def _last_line(found: Found, broken: list[str]) -> str:
    compared = ratio(found, calm=True) or ratio(found, calm=False)
    assert compared is not None
    risen = rss_rise(found)
    return (
        f"minutes={found.size.minutes:g} faults={len(broken)} idle_kib={found.idle_kib_each:.1f} "
        f"rss_mib={max(sample.rss_bytes for sample in found.samples) / MIB:.0f} "
        + (f"rise_kib_per_min_max={risen.most:.0f} " if risen else "")
        + f"p99_ratio={compared.p99:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
