"""What every row that needs the real service does with it: start it, define a workflow, wait for a run."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.server import Server

RUNS = "/api/v2/workflows/runs"
POLL_S = 0.1
SETTLE_TIMEOUT_S = 60.0
QUIET_S = 0.3
IDLE_CORES_MAX = 0.15
CLOCK_OF_ALL_THREADS = 2  # what clock_getcpuclockid(3) adds to a process; /proc counts 10 ms at a time
SETTINGS = {"TAILRACE_MAX_OUTPUT_BYTES": 2**32, "TAILRACE_MAX_EVENTS_PER_RUN": 50_000_000}


@contextmanager
def server(directory: Path, **settings: object) -> Iterator[Server]:
    """Run the service on an empty database of its own."""
    with TemporaryDirectory(dir=directory) as place, Server(Path(place), **SETTINGS, **settings) as running:
        yield running


def ended(running: Server, run_id: str, *, timeout_s: float = 60.0) -> Mapping[str, Any]:
    """Return the run once it is over and the projections have come that far; it must have succeeded."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = running.get(f"{RUNS}/{run_id}")
        if answer.status == 200 and answer.json["endTime"]:
            assert answer.json["status"] == "success", answer
            return answer.json
        assert answer.status in {200, 503}, answer  # 503: the projections are more than 2 s behind
        assert time.monotonic() < deadline, answer
        time.sleep(POLL_S)


def settled(running: Server) -> None:
    """Return once the service has had nothing to do for a while: what it makes of the log is made."""
    assert running.process is not None
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    used, quiet_since = cpu_s(running.process.pid), time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S and time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = cpu_s(running.process.pid)
        if now - used > POLL_S * IDLE_CORES_MAX:
            quiet_since = time.monotonic()
        used = now


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, user and system, that a process has used."""
    return time.clock_gettime(~pid << 3 | CLOCK_OF_ALL_THREADS)


def rss_bytes(pid: int) -> int:
    """Return the memory that a process has in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def chain(steps: int, step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition of ``steps`` equal steps, each after the one before it."""
    return {
        "steps": {
            f"s{number}": {"id": f"s{number}", "dependsOn": [f"s{number - 1}"] if number else [], **step}
            for number in range(steps)
        }
    }


NOTHING = {"type": "wait", "config": {"duration": 0}}
TRUE = {"type": "command", "config": {"command": "true"}}

PRINTING = """
import sys, time
lines, per_s = int(sys.argv[1]), int(sys.argv[2])
text = "a line of output as programs print them, number %d\\n"
began = time.monotonic()
for start in range(0, lines, 500):
    sys.stdout.write("".join(text % number for number in range(start, min(start + 500, lines))))
    sys.stdout.flush()
    time.sleep(max(0, began + start / per_s - time.monotonic()))
"""


def printing(lines: int, *, per_s: int = 10**9) -> dict[str, Any]:
    """Return a definition of one command that prints ``lines``, at most ``per_s`` a second."""
    config = {"command": sys.executable, "args": ["-S", "-c", PRINTING, str(lines), str(per_s)]}
    return {"steps": {"print": {"id": "print", "type": "command", "config": config}}}
