"""A disk that fills up under the service, at every position, and then has space again.

Accepting stops with 503, reading goes on, and work resumes in the same process.
``python -m tests.faults.full_disk --positions 1000``; needs the right to mount a tmpfs.
"""

import os
import random
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.program import program
from tests.faults.witness import Witness
from tests.server import Server

SIZE = 16 * 1024 * 1024
PAGE = 4096
PAGES_LEFT_MAX = 250  # when the trouble begins; a run takes some 20
SPARE_BYTES = 3 * 1024 * 1024  # beyond the least, or the disk is simply too small for what is on it
RUNS_MAX = 80  # until it must have been felt
TRIES_MAX = 20
LIVES_POSITIONS = 25  # of one service, then another one begins with an empty disk
MIN_FREE_BYTES = (0, 0, 0, 512 * 1024)  # by turns; 0: nothing warns of the end


@contextmanager
def small_disk(directory: Path) -> Iterator[Path | None]:
    """Mount a tmpfs of 16 MB in ``directory``; None when that is not allowed."""
    disk = directory / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, pages_left: int) -> Path:
    """Leave so many pages free, and return the file to be removed."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        for _ in range(TRIES_MAX):  # the service writes meanwhile
            size = free_bytes(disk) - pages_left * PAGE
            try:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
                break
            except OSError:
                continue
    return ballast


def trouble(witness: Witness, disk: Path, pages_left: int) -> bool:
    """Fill the disk and free it again; return whether it was felt."""
    ballast = fill(disk, pages_left)
    try:
        felt = any(witness.start_run().status == 503 for _ in range(RUNS_MAX))
        for _ in range(2):
            witness.reads_on()
            witness.start_run()
    finally:
        ballast.unlink()
    witness.resumes()
    return felt


def life(
    directory: Path, chance: random.Random, *, positions: int, min_free: int
) -> tuple[list[str], int, int] | None:
    """Run one service through at most so many full disks, while what it has written leaves room for more.

    Return the faults, how many disks there were and how many were felt; None if not allowed.
    """
    with small_disk(directory) as disk:
        if disk is None:
            return None
        server = Server(disk, TAILRACE_MIN_FREE_BYTES=min_free)
        server.diagnostics = directory / "diagnostics.txt"
        with server:
            process = server.process
            witness = Witness(server)
            felt: list[bool] = []
            while len(felt) < positions and free_bytes(disk) > min_free + SPARE_BYTES:
                pages_left = min_free // PAGE + chance.randrange(PAGES_LEFT_MAX)
                felt.append(trouble(witness, disk, pages_left))
            witness.hold_to_it()
            witness.reads_on()
            assert server.process is process
            witness.resumes()
            assert process is not None
            if process.poll() is not None:
                witness.faults.append("the service ended")
            server.restart()
            witness.hold_to_it()
    return witness.faults, len(felt), sum(felt)


def full_disks(directory: Path, *, seed: int, positions: int) -> tuple[list[str], dict[str, int]] | None:
    """Fill the disk ``positions`` times; return the faults found and figures, None if that is not allowed."""
    chance = random.Random(seed)
    faults: list[str] = []
    done = felt = lives = 0
    while done < positions:
        count = min(LIVES_POSITIONS, positions - done)
        (where := directory / f"life{lives}").mkdir()
        found = life(where, chance, positions=count, min_free=MIN_FREE_BYTES[lives % len(MIN_FREE_BYTES)])
        if found is None:
            return None
        faults += found[0]
        done += found[1]
        felt += found[2]
        lives += 1
    return faults, {"positions": done, "felt": felt, "services": lives, "faults": len(faults)}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "positions", 1_000,
        lambda directory, given: full_disks(directory, seed=given.seed, positions=given.positions),
        skipped="a tmpfs cannot be mounted here; run as root",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
