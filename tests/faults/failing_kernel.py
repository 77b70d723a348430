"""The kernel fails what the running service asks of its log's files, for a while: strace comes and goes.

Accepting stops with 503, an unknown outcome says so, reading goes on, and once strace has left so does work,
in the same process. ``python -m tests.faults.failing_kernel --faults 200``.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.program import program
from tests.faults.witness import Witness
from tests.server import Server

ATTACH_TIMEOUT_S = 20.0
REQUESTS = 6
CALLS = ("fdatasync", "pwrite64", "ftruncate", "fdatasync,pwrite64,ftruncate")
TIMES = ("1", "2", "3", "4", "6", "1+", "2+", "3+", "5+2")  # of each thread, from strace's arrival on
LIVES_FAULTS = 25


@contextmanager
def failing(server: Server, calls: str, error: str, when: str) -> Iterator[bool]:
    """Fail the service's calls on its log's files meanwhile; False if it cannot be traced."""
    assert server.process is not None
    strace = ["strace", "-f", "-p", str(server.process.pid), "-o", "/dev/null"]
    for suffix in ("", "-wal"):
        strace += ["-P", f"{server.db}{suffix}"]
    strace += ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"]
    tracer = subprocess.Popen(strace, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        deadline = time.monotonic() + ATTACH_TIMEOUT_S
        while not _traced(server.process.pid) and tracer.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield tracer.poll() is None
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.wait(ATTACH_TIMEOUT_S)
        tracer.stderr.close()


def _traced(pid: int) -> bool:
    """Say whether every thread of the process is traced."""
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)


def life(directory: Path, chance: random.Random, count: int) -> tuple[list[str], dict[str, int]] | None:
    """Run one service through ``count`` faults; None if it cannot be traced."""
    with Server(directory) as server:
        process = server.process
        witness = Witness(server)
        felt = 0
        for _ in range(count):
            before = len(witness.refused) + len(witness.unknown)
            calls, when = chance.choice(CALLS), chance.choice(TIMES)
            with failing(server, calls, chance.choice(("EIO", "ENOSPC")), when) as begun:
                if not begun:
                    return None
                for _ in range(REQUESTS):
                    witness.start_run()
                    witness.reads_on()
            felt += len(witness.refused) + len(witness.unknown) > before
            if not witness.resumes():
                break
        witness.hold_to_it()
        witness.reads_on()
        assert server.process is process is not None
        server.restart()
        witness.hold_to_it()
    told = {"accepted": witness.accepted, "refused": witness.refused, "unknown": witness.unknown}
    return witness.faults, {"felt": felt} | {name: len(runs) for name, runs in told.items()}


def kernel_faults(directory: Path, *, seed: int, count: int) -> tuple[list[str], dict[str, int]] | None:
    """Make the kernel fail ``count`` times; return the faults found and figures, None if that is not possible."""
    if shutil.which("strace") is None:
        return None
    chance = random.Random(seed)
    faults: list[str] = []
    figures = {"cases": 0}
    while figures["cases"] < count:
        share = min(LIVES_FAULTS, count - figures["cases"])
        (where := directory / f"life{figures['cases']}").mkdir()
        found = life(where, chance, share)
        if found is None:
            return None
        faults += found[0]
        for name, value in {"cases": share, **found[1]}.items():
            figures[name] = figures.get(name, 0) + value
    return faults, figures | {"faults": len(faults)}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "faults", 200,
        lambda directory, given: kernel_faults(directory, seed=given.seed, count=given.faults),
        skipped="strace is not there, or may not trace",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
