"""SIGTERM under load: what runs is given its time, what is left goes on at the next start, and nobody notices.

As kill.py, but the service is asked to end. Then no attempt may be interrupted, so steps need no ``onInterrupt``.
"""

import asyncio
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from tests.faults.kill import DEFINITION, cycles_under_load
from tests.faults.program import program
from tests.server import Server

FRAGILE: dict[str, Any] = {
    **DEFINITION,
    "steps": [
        {key: value for key, value in step.items() if key not in {"onInterrupt", "onError"}}
        for step in DEFINITION["steps"]
    ],
}  # fmt: skip


async def drains(directory: Path, *, cycles: int, seed: int) -> tuple[list[str], dict[str, int]]:
    """Stop and start the service ``cycles`` times under load; return the faults found, and figures."""
    faults: list[str] = []

    def end(server: Server) -> None:
        if (code := server.stop()) != 0:
            faults.append(f"an orderly stop exited {code}")

    found, figures = await cycles_under_load(
        directory, FRAGILE, end, ends={"success", "cancelled"}, cycles=cycles, seed=seed
    )
    faults += found
    return faults, figures | {"faults": len(faults)}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "cycles", 500,
        lambda directory, given: asyncio.run(drains(directory, cycles=given.cycles, seed=given.seed)),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
