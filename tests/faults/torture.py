"""Every promise at its large figure, one row after the other, and one table at the end.

A row is a program that takes how much it is to do and a seed, prints what it finds, and exits 1 on a fault; its last
line gives its figures, ``name=value``. To add one, add a line to ROWS. ``scripts/torture --scale 0.1``.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct, to_builtins

from tests.attacks.attacks import ATTACKS

ROOT = Path(__file__).parent.parent.parent
LEAST_S = 300  # of any row, however small its figure: to start and to stop takes time
FAULTS_SHOWN = 20


class Row(Struct, frozen=True):
    """One test: ``words`` are its program's, with {count} and {seed}; ``count`` is the large figure of ``unit``.

    ``minutes`` is when it is ended at the latest, at the large figure. ``control``: it must find faults.
    """

    name: str
    words: str
    count: int
    unit: str
    minutes: int
    control: bool = False


def program(module: str, flag: str) -> str:
    return f"-m {module} --{flag} {{count}} --seed {{seed}}"


def tests(*places: str) -> str:
    """Return the words of a row that are tests: their number does not scale."""
    return f"-m pytest -q -p no:cacheprovider {' '.join(places)}"


SIMULATION = "-m tests.simulation --first {seed} --seeds {count} --world"
CONTROL = program("tests.faults.power", "states") + " --synchronous NORMAL"
ROWS = [
    Row("kill -9 under load", program("tests.faults.kill", "cycles"), 1_000, "cycles", 120),
    Row("orderly stop under load", program("tests.faults.drain", "cycles"), 500, "cycles", 60),
    Row("power loss", program("tests.faults.power", "states"), 50_000, "states", 90),
    Row("power loss without flushes (control)", CONTROL, 1_000, "states", 10, control=True),
    Row("I/O faults, every operation", program("tests.faults.sweep", "cases"), 5_000, "cases", 30),
    Row("I/O faults of the running service", program("tests.faults.failing_kernel", "faults"), 500, "faults", 60),
    Row("full disk", program("tests.faults.full_disk", "positions"), 1_000, "positions", 120),
    Row("bit flips and truncations", program("tests.faults.damage", "cases"), 1_000, "cases", 60),
    Row("pages of the log destroyed, one after the other", program("tests.faults.pages", "ways"), 8, "ways", 60),
    Row("simulation of the log", f"{SIMULATION} log", 1_000_000, "seeds", 240),
    Row("simulation of live readers", f"{SIMULATION} crowds", 50_000, "seeds", 120),
    Row("simulation of sealing", f"{SIMULATION} sealing", 20_000, "seeds", 60),
    Row("mutants of the simulations", tests("tests/simulation", "-k", "catches"), 1, "suite", 15),
    Row("model test", "-m tests.log.test_model --steps {count} --seed {seed}", 100_000, "steps", 60),
    Row("one append races one new follower", tests("tests/log/test_race.py"), 1, "suite", 10),
    Row("replay is live", program("tests.faults.late", "frames"), 1_000_000, "frames", 30),
    Row("any reader of a run while it is written", "-m tests.api.live_fuzz --first {seed} --seeds {count}", 50, "readers", 60),
    Row("histories and databases of releases", tests("tests/histories"), 1, "suite", 10),
    Row("conformance to RFC 6455, 247 cases", tests("tests/wire/test_conformance.py"), 1, "suite", 15),
    Row("every route for every kind of credential", tests("tests/api/test_access.py"), 1, "suite", 10),
    Row("checker of the kills", tests("tests/faults/test_checker.py"), 1, "suite", 5),
    *(
        Row(f"attack: {name}", f"-m tests.attacks {name} --count {{count}} --seed {{seed}}", attack.large,
            attack.unit.split(",")[0], 120)
        for name, attack in ATTACKS.items()
    ),
]  # fmt: skip


class Result(Struct, frozen=True):
    """What a row came to: so many ``cases`` of ``unit``, by its own word; ``figures`` is its last line."""

    name: str
    cases: int
    unit: str
    faults: int
    seconds: int
    seed: int
    verdict: str
    figures: str


def run_row(row: Row, *, scale: float, seed: int) -> Result:
    """Run a row to its end, or until its time is over."""
    count = max(round(row.count * scale), 1)
    words = row.words.format(count=count, seed=seed).split()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=max(row.minutes * 60 * scale, LEAST_S))
        ended = process.returncode
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if isinstance(error, KeyboardInterrupt):
            raise
        ended = None
    lines = [line for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    verdict = verdict_of(row, ended, last)
    if verdict == "FAILED":
        print("\n".join(lines[-FAULTS_SHOWN:]))
    faults = faults_of(ended, last)
    cases, unit = done_of(row, last)
    return Result(row.name, cases, unit, faults, round(time.monotonic() - began), seed, verdict, last)


def done_of(row: Row, last: str) -> tuple[int, str]:
    """Return how much of what was done, as a row's last line begins: ``cases=102 …`` or ``3 passed …``.

    That is not what the row was asked for where it makes more of it: cases of ways, tests of a suite.
    """
    if found := re.match(r"(\w+)=(\d+)", last):
        return int(found[2]), row.unit if found[1] == "count" else found[1].replace("_", " ")
    if found := re.match(r"(\d+) (\w+)", last):
        return int(found[1]), found[2]
    return 0, row.unit


def faults_of(ended: int | None, last: str) -> int:
    """Return how many faults a row's last line tells of: at least one if it failed, whatever it says."""
    told = re.search(r"\bfaults=(\d+)|(\d+) failed\b", last)
    found = int(told[1] or told[2]) if told else 0
    return found or int(ended != 0)


def verdict_of(row: Row, ended: int | None, last: str) -> str:
    if ended is None:
        return "NOT ENDED"
    if ended == 0 and "skipped" in last and "passed" not in last:
        return "skipped"
    if row.control:
        return "caught" if ended == 1 and "faults=" in last else "FAILED"
    return "held" if ended == 0 else "FAILED"


def table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of the table."""
    width = max(len(result.name) for result in results)
    yield f"| {'test':{width}} | {'done':>16} | faults | seconds |  seed | verdict"
    yield f"|{'-' * (width + 2)}|{'-' * 18}|{'-' * 8}|{'-' * 9}|{'-' * 7}|{'-' * 10}"
    for each in results:
        cases = f"{each.cases:,} {each.unit}"
        yield f"| {each.name:{width}} | {cases:>16} | {each.faults:6} | {each.seconds:7} | {each.seed:5} | {each.verdict}"


def main(rows: Sequence[Row] = ROWS) -> int:
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Every promise at its large figure.")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--list", action="store_true", help="say what there is and run nothing")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    given = parser.parse_args()
    chosen = [row for row in rows if given.only in row.name]
    if given.list or not chosen:
        for row in rows:
            print(f"{row.name}: {row.count:,} {row.unit}: python {row.words}")
        return 0 if given.list else 2
    results = []
    for row in chosen:
        print(f"{row.name} …", end=" ", flush=True)
        results.append(result := run_row(row, scale=given.scale, seed=given.seed))
        print(f"{result.verdict}: {result.figures} ({result.seconds} s)", flush=True)
    print()
    print("\n".join(table(results)))
    if given.json:
        given.json.write_text(json.dumps(to_builtins(results), indent=1) + "\n")
    return int(any(result.verdict not in {"held", "caught", "skipped"} for result in results))


if __name__ == "__main__":
    sys.exit(main())
