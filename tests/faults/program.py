"""The programs behind the rows of torture: how they are asked, and how they tell what they found."""

import logging
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

FAULTS_SHOWN = 50
SHM = Path("/dev/shm")  # noqa: S108  a directory made there is nobody else's

Told = tuple[list[str], Mapping[str, object]]  # the faults, and the figures


def program(
    parser: ArgumentParser, counted: str, count: int, made: Callable[[Path, Namespace], Told | None],
    *, skipped: str = "", in_memory: bool = False,
) -> int:  # fmt: skip
    """Let ``made`` do what the command line asks, in a directory of its own; return the exit code.

    ``counted`` is the flag that says how much of it, by default ``count``; ``skipped`` is said where ``made`` cannot
    be done and returns None. ``in_memory``: the disk below its files plays no part.
    """
    parser.add_argument(f"--{counted}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    # What a room here says of the faults that it is given, thousands of them, is not what is asked.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(dir=SHM if in_memory and SHM.is_dir() else None) as directory:
        told = made(Path(directory), given)
    if told is None:
        print(f"skipped: {skipped}")
        return 0
    faults, figures = told
    for fault in faults[:FAULTS_SHOWN]:
        print(fault)
    print(" ".join(f"{name.replace(' ', '_')}={value}" for name, value in figures.items()))
    return 1 if faults else 0
