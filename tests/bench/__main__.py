"""``python -m tests.bench [--only NAME] [--json FILE] [--quick | --large]``: every row, one table; exits 0."""

import argparse
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from tests.bench import (
    appends,
    engine,
    fanout,
    first_frame,
    first_message,
    idle,
    lines,
    many_runs,
    neighbours,
    replay,
    sealing,
    stuck,
)
from tests.bench.figures import Row, save, table
from tests.bench.rounds import FULL, LARGE, QUICK, Scale, middle, tell

ROOT = Path(__file__).parent.parent.parent
PLACE = ROOT / ".cache" / "bench"  # the disk of the checkout, not a /tmp in memory
FLUSHES = 100

JOBS: dict[str, Callable[[Scale, Path], Iterator[Row]]] = {
    "appends": appends.rows,
    "replay": replay.rows,
    "first_message": first_message.rows,
    "fanout": fanout.rows,
    "many_runs": many_runs.rows,
    "stuck": stuck.rows,
    "sealing": sealing.rows,
    "idle": idle.rows,
    "lines": lines.rows,
    "first_frame": first_frame.rows,
    "engine": engine.rows,
    "neighbours": neighbours.rows,
}


def main() -> None:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", choices=JOBS, action="append", help="one part; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="small sizes, one round, nothing is judged")
    sizes.add_argument(
        "--large", action="store_true", help="the sizes of the targets, however long they take"
    )
    asked = parser.parse_args()
    scale = QUICK if asked.quick else LARGE if asked.large else FULL
    rows: list[Row] = []
    began = time.monotonic()
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in asked.only or JOBS:
        tell(f"{time.monotonic() - began:4.0f} s  {name} …")
        with TemporaryDirectory(dir=PLACE) as directory:
            rows += JOBS[name](scale, Path(directory))
    machine = _machine()
    print(f"\n{machine}; {time.monotonic() - began:.0f} s\n")
    print(table(rows, judged=not asked.quick))
    if asked.json:
        save(rows, asked.json, machine=machine, quick=asked.quick, large=asked.large)


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, fdatasync {_flush_ms():.2f} ms, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _flush_ms() -> float:
    """Return what one flush of a page costs on the disk that the rows were measured on."""
    times = []
    with TemporaryFile(dir=PLACE) as file:
        for _ in range(FLUSHES):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return middle(times) * 1000


if __name__ == "__main__":
    sys.exit(main())
