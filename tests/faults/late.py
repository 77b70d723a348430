"""Replay is live: fifty clients join a run at any moment of it, lose their connections, and come back.

The SHA-256 of what each has received in all is that of the run. ``python -m tests.faults.late --frames 100000``.
"""

import asyncio
import json
import random
import sys
from argparse import ArgumentParser
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path

from tests.api.live_run import CHUNKS, LiveRun
from tests.api.live_ways import WAYS
from tests.faults.program import program
from tests.server import Server

JOINERS = 50
RUN_TIMEOUT_S = 240
LEAVES_AFTER = (3, 30, 300, 1_000, 10**9)  # frames of one connection


class Joiner:
    """One client of ``run``: what it has received is only kept as a hash."""

    def __init__(self, run: LiveRun, seed: str) -> None:
        self.run = run
        self.chance = random.Random(seed)
        self.hash = sha256()
        self.frames = self.connections = self.last = 0

    async def read(self) -> None:
        """Join, and come back until the run is over; every tenth joins when it is."""
        moment = (
            len(self.run.written) - 1 if self.chance.random() < 0.1 else self.chance.randrange(CHUNKS + 2)
        )
        await self.run.written[moment].wait()
        while not await self._connection():
            await asyncio.sleep(self.chance.choice((0, 0, 0.01, 0.1)))

    async def _connection(self) -> bool:
        self.connections += 1
        leaves_after = self.chance.choice(LEAVES_AFTER)
        way, slow = self.chance.choice(WAYS), self.chance.random() < 0.2
        asked = {"after": str(self.last)} if self.last else {}
        async with aclosing(way(self.run.server, self.run.id, asked, slow=slow)) as messages:
            async for message in messages:
                self.hash.update(b"%d %b\n" % (len(message), message))
                self.frames += 1
                self.last = json.loads(message)["seq"]
                leaves_after -= 1
                if not leaves_after:
                    return False
        return True


async def one_run(server: Server, directory: Path, seed: int) -> tuple[list[str], int, int]:
    """Write a run, have it read by all; return the faults, and how many frames and connections there were."""
    run = LiveRun(server, directory, random.Random(seed))
    joiners = [Joiner(run, f"{seed}/{number}") for number in range(JOINERS)]
    async with asyncio.timeout(RUN_TIMEOUT_S), asyncio.TaskGroup() as group:
        group.create_task(run.write())
        for joiner in joiners:
            group.create_task(joiner.read())
    whole = sha256(b"".join(b"%d %b\n" % (len(event), event) for event in run.events[1:-1])).digest()
    faults = [
        f"seed {seed}, joiner {number}: {joiner.frames} frames to seq {joiner.last}, not the {len(run.events) - 2} of the run"
        for number, joiner in enumerate(joiners)
        if joiner.hash.digest() != whole
    ]
    return faults, sum(joiner.frames for joiner in joiners), sum(joiner.connections for joiner in joiners)


async def late_joiners(directory: Path, *, seed: int, frames: int) -> tuple[list[str], dict[str, int]]:
    """Go on until so many frames have been received; return the faults found, and figures."""
    faults: list[str] = []
    figures = {"frames": 0, "runs": 0, "streams": 0, "connections": 0}
    with Server(directory) as server:
        while figures["frames"] < frames:
            found, received, connections = await one_run(server, directory, seed + figures["runs"])
            faults += found
            for name, value in {
                "frames": received,
                "runs": 1,
                "streams": JOINERS,
                "connections": connections,
            }.items():
                figures[name] += value
    return faults, figures | {"faults": len(faults)}


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "frames", 100_000,
        lambda directory, given: asyncio.run(late_joiners(directory, seed=given.seed, frames=given.frames)),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
