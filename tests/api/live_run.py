"""A run that is being written, chunk by chunk, by two of its steps at once."""

import asyncio
import json
import os
import random
from contextlib import aclosing
from pathlib import Path

from tests.api.asked import history
from tests.api.live_ways import over_websocket
from tests.server import Server

CHUNKS = 50
LAST = "the last of it"


class LiveRun:
    """``written``: moments to join at (it exists, each chunk, it is over). ``head``: a seq that it has reached.

    ``events``: all of them, once it is over.
    """

    def __init__(self, server: Server, directory: Path, chance: random.Random) -> None:
        self.server = server
        self.id = f"live-{chance.randrange(10**12)}"
        self.written = [asyncio.Event() for _ in range(CHUNKS + 2)]
        self.head = 0
        self.events: list[bytes] = []
        self._chance = chance
        self._pipes = [directory / f"{self.id}-{name}" for name in "ab"]
        self._ended = asyncio.Event()

    async def goes_on(self, chunks: int) -> None:
        """Return when so many more chunks have been written, or all."""
        so_far = sum(moment.is_set() for moment in self.written)
        await self.written[min(so_far + chunks, len(self.written) - 1)].wait()

    async def write(self) -> None:
        """Write it all; returns when it is over."""
        await asyncio.sleep(self._chance.random() * 0.2)  # some wait for it already
        await asyncio.to_thread(self._begin)
        self.written[0].set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._say())
        self.events = await asyncio.to_thread(history, self.server, self.id)
        assert json.loads(self.events[-1])["type"] == "run_complete"
        self.written[-1].set()

    def _begin(self) -> None:
        for pipe in self._pipes:
            os.mkfifo(pipe)
        a, b = map(str, self._pipes)
        steps = {
            "a": command("cat", a),
            "b": command("sh", "-c", 'cat "$0" >&2', b),
            "c": command("echo", "{{code}}") | {"dependsOn": ["a", "b"], "output": {"code": "exitCode"}},
        }
        self.server.create(self.id, {"variables": {"code": 7}, "steps": steps})
        answer = self.server.post(f"/api/v2/workflows/{self.id}/execute", {"runId": self.id})
        assert answer.status == 202, answer

    async def _say(self) -> None:
        pipes = [
            os.open(pipe, os.O_RDWR) for pipe in self._pipes
        ]  # neither side waits for the other to open it
        try:
            for moment in self.written[1:-1]:
                await asyncio.to_thread(os.write, self._chance.choice(pipes), self._chunk())
                moment.set()
                await asyncio.sleep(self._chance.choice([0, 0, 0.002, 0.01, 0.03]))
            for pipe in pipes:
                await asyncio.to_thread(os.write, pipe, f"{LAST}\n".encode())
            await self._ended.wait()
        finally:
            for pipe in pipes:
                os.close(pipe)

    def _chunk(self) -> bytes:
        count, size = self._chance.choice([(1, 20), (3, 100), (200, 20), (40, 500), (3, 15_000)])
        return b"".join(f"{self._chance.random()} {'x' * size}\n".encode() for _ in range(count))

    async def _watch(self) -> None:
        """Know how far it has come, and when both steps have said their last, so that the pipes can be closed."""
        last = 0
        async with aclosing(over_websocket(self.server, self.id, {}, slow=False)) as messages:
            async for message in messages:
                event = json.loads(message)
                self.head = event["seq"]
                last += event["payload"].get("message") == LAST
                if last == 2:
                    self._ended.set()


def command(name: str, *args: str) -> dict:
    return {"type": "command", "config": {"command": name, "args": list(args)}}
