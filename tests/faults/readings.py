"""Readers of damaged files: whatever they are given is what was written, or they are told that it is not all."""

import asyncio
import json
import random
import re
from collections import Counter
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.faults.kill import stored_bytes
from tests.server import Answer, Server

RUNS = "/api/v2/workflows/runs"
DEADLINE_S = 15
UNDER_WAY = {404, 503}  # it may not be known any more, or the store as a whole may not be readable


class Reader:
    """Reads all runs, each in two ways; ``faults`` is what was wrong, ``told`` counts how readings ended."""

    def __init__(self, port: int, runs: dict[str, list[bytes]]) -> None:
        self.client = Server(Path())
        self.client.port = port
        self.runs = runs
        self.faults: list[str] = []
        self.told: Counter[str] = Counter()

    async def read(self, chance: random.Random) -> None:
        for run_id, events in self.runs.items():
            after = chance.choice((-1, -1, chance.randrange(len(events))))
            ways = (self.over_websocket, self.over_lines, self.over_sse, self.over_pages)
            for way in chance.sample(ways, 2):
                try:
                    got, reported = await way(run_id, after)
                except TimeoutError:
                    self.faults.append(f"{way.__name__} of {run_id} after {after}: it never ends")
                    continue
                self.check(
                    f"{way.__name__} of {run_id} after {after}", got, events[after + 1 :], after, reported
                )

    def check(
        self, what: str, got: list[bytes], expected: list[bytes], after: int, reported: str | int | None
    ) -> None:
        """``reported``: the damaged seq, another reason to end, or None for a proper end."""
        first = next((n for n, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
        if first is not None or len(got) > len(expected):
            self.faults.append(f"{what}: {after + 1 + (first or 0)} is not what was written")
        elif reported is None and len(got) < len(expected):
            self.faults.append(f"{what}: ends in order before {after + 1 + len(got)}")
        elif isinstance(reported, int) and reported not in {after + 1 + len(got), after + len(expected)}:
            # A reading needs its run's last event to begin with: it may be that one which is reported.
            self.faults.append(f"{what}: {reported} is reported, {after + 1 + len(got)} comes next")
        self.told["whole" if reported is None else "damaged" if isinstance(reported, int) else reported] += 1

    async def over_websocket(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        got: list[bytes] = []
        url = f"{self.client.ws_url}{RUNS}/{run_id}/stream?types=all{behind(after)}"
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                connect(url, compression=None, ping_interval=None) as socket,
            ):
                while True:
                    got.append(await socket.recv(decode=False))
        except InvalidStatus as refused:
            return got, self.refusal(refused.response.status_code, json.loads(refused.response.body))
        except ConnectionClosed as closed:
            end = closed.rcvd
        if end is not None and end.code == 1000:
            return got, None
        if (
            end is not None
            and end.code == 4500
            and (match := re.fullmatch(r"event (\d+) is damaged", end.reason))
        ):
            return got, int(match[1])
        if end is None or end.code not in {4404, 1013}:
            self.faults.append(f"the WebSocket of {run_id} after {after} closed {end}")
        return got, f"closed {end.code if end else None}"

    async def ask(self, path: str, accept: str = "*/*") -> Answer:
        return await asyncio.wait_for(asyncio.to_thread(self.client.get, path, accept=accept), DEADLINE_S)

    async def over_lines(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        answer = await self.ask(f"{RUNS}/{run_id}/stream?types=all{behind(after)}", "application/x-ndjson")
        if answer.status != 200:
            return [], self.refusal(answer.status, answer.json)
        lines = answer.body.splitlines()
        if lines and lines[-1].startswith(b'{"problem":'):
            return lines[:-1], self.problem(json.loads(lines[-1])["problem"])
        return lines, None

    async def over_sse(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        answer = await self.ask(f"{RUNS}/{run_id}/stream?types=all{behind(after)}", "text/event-stream")
        if answer.status == 204:
            return [], None
        if answer.status != 200:
            return [], self.refusal(answer.status, answer.json)
        got: list[bytes] = []
        end: str | int | None = "cut off"
        for block in answer.body.split(b"\n\n"):
            data = block.partition(b"data: ")[2]
            if block.startswith(b"id: "):
                got.append(data)
            elif block.startswith(b"event: end\n"):
                end = None
            elif block.startswith(b"event: fault\n"):
                end = self.problem(json.loads(data))
        return got, end

    async def over_pages(self, run_id: str, after: int) -> tuple[list[bytes], str | int | None]:
        got: list[bytes] = []
        while True:
            answer = await self.ask(f"{RUNS}/{run_id}/events?types=all&limit=1000{behind(after)}")
            if answer.status != 200:
                return got, self.refusal(answer.status, answer.json)
            got += stored_bytes(answer.body)
            cursor = answer.json["nextCursor"]
            if cursor is None:
                return got, None
            after = cursor

    def refusal(self, status: int, problem: dict) -> str | int:
        if status not in UNDER_WAY and (status != 500 or "seq" not in problem):
            self.faults.append(f"answered {status} {problem}")
        return self.problem(problem)

    def problem(self, problem: dict) -> str | int:
        return problem["seq"] if "seq" in problem else str(problem["status"])


def behind(after: int) -> str:
    return f"&after={after}" if after >= 0 else ""
