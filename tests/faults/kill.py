"""kill -9 under load: clients start runs and tail them while the service dies at random moments.

``python -m tests.faults.kill --cycles 1000`` prints one line of figures; the test beside it runs few cycles.
"""

import asyncio
import json
import os
import random
import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.faults.checker import faults_of_frames, faults_of_history
from tests.faults.program import program
from tests.server import Server

STARTERS = 4
TAILERS = 10
RUNS_AHEAD_MAX = 40  # unfinished runs beyond which no more are started
CANCELS = 0.15  # of the runs, some moment after they were accepted
CANCEL_AFTER_S = (0.0, 0.5)
UP_S = (0.05, 0.6)  # how long the service lives in one cycle
RESUMED_WITHIN_S = 10.0  # promise 4: of a ready service, for each run that was not over
MARK = "TAILRACE_TEST_MARK"  # an argument of every command: whoever carries it after the end is an orphan

DEFINITION = {
    "variables": {"mark": ""},
    "steps": [
        {"id": "a", "type": "wait", "config": {"duration": 5}},
        {"id": "b", "type": "command", "dependsOn": ["a"], "onInterrupt": "retry",
         "config": {"command": "sh", "args": ["-c", "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.01; done", "{{mark}}"]},
         "output": {"text": "stdout"}},
        {"id": "c", "type": "wait", "dependsOn": ["a"], "config": {"duration": "20ms"}},
        {"id": "d", "type": "command", "dependsOn": ["b", "c"], "onError": "continue",
         "config": {"command": "echo", "args": ["{{text}}"]}},
    ],
}  # fmt: skip


class Load:
    """What clients were told (202) and what they saw, over all lives of the service."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.mark = f"{MARK}-{uuid.uuid4()}"
        self.accepted: dict[str, dict[int, bytes]] = {}
        self.order_faults: list[str] = []
        self.over: set[str] = set()
        self.cancels: list[str] = []
        self.connections = 0
        self.running = True

    async def start_runs(self) -> None:
        """Start runs; a request without an answer is repeated until it has one."""
        while self.running:
            if len(self.accepted) - len(self.over) > RUNS_AHEAD_MAX:
                await asyncio.sleep(0.01)
                continue
            body = {
                "runId": str(uuid.UUID(int=self.random.getrandbits(128))),
                "variables": {"mark": self.mark},
            }
            while self.running:
                try:
                    answer = await asyncio.to_thread(self.server.post, "/api/v2/workflows/kill/execute", body)
                except (OSError, HTTPException):  # the latter: killed in the middle of its answer
                    await asyncio.sleep(0.02)
                    continue
                if answer.status == 202:
                    self.accepted[body["runId"]] = {}
                    if self.random.random() < CANCELS:
                        await self.cancel(body["runId"])
                    break
                assert answer.status == 503, answer
                await asyncio.sleep(0.02)

    async def cancel(self, run_id: str) -> None:
        """Ask once that a run be cancelled; it may be over, or the service dead."""
        await asyncio.sleep(self.random.uniform(*CANCEL_AFTER_S))
        try:
            answer = await asyncio.to_thread(self.server.post, f"/api/v2/workflows/runs/{run_id}/cancel", {})
        except (OSError, HTTPException):
            return
        assert answer.status in {202, 409, 503}, answer
        if answer.status == 202:
            self.cancels.append(run_id)

    async def tail_runs(self) -> None:
        """Follow one accepted run after the other to its end, resuming after the last seq."""
        while self.running or len(self.over) < len(self.accepted):
            open_runs = [run_id for run_id in self.accepted if run_id not in self.over]
            if not open_runs:
                await asyncio.sleep(0.01)
                continue
            await self.tail(self.random.choice(open_runs))

    async def tail(self, run_id: str) -> None:
        frames: dict[int, bytes] = {}
        while True:
            try:
                await self.one_connection(run_id, frames)
            except (OSError, InvalidHandshake):
                await asyncio.sleep(0.02)
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == 1000:
                    break
        if self.accepted[run_id] and self.accepted[run_id] != frames:
            self.order_faults.append(f"{run_id}: two clients saw different streams")
        self.accepted[run_id] = frames
        self.over.add(run_id)

    async def one_connection(self, run_id: str, frames: dict[int, bytes]) -> None:
        after = f"?after={max(frames)}" if frames else ""
        url = f"{self.server.ws_url}/api/v2/workflows/runs/{run_id}/stream{after}"
        async with connect(url, compression=None, open_timeout=20) as socket:
            self.connections += 1
            while True:
                data = await socket.recv(decode=False)
                seq = json.loads(data)["seq"]
                if seq != len(frames) + 1:
                    self.order_faults.append(f"{run_id}: seq {seq} came after {len(frames)}")
                frames[seq] = data


async def kill_cycles(directory: Path, *, cycles: int, seed: int) -> tuple[list[str], dict[str, int]]:
    """Kill and restart the service ``cycles`` times under load; return the faults found, and figures."""
    return await cycles_under_load(
        directory,
        DEFINITION,
        Server.kill_hard,
        ends={"success", "failed", "cancelled"},
        cycles=cycles,
        seed=seed,
    )


async def cycles_under_load(
    directory: Path, definition: dict[str, Any], end: Callable[[Server], None],
    *, ends: set[str], cycles: int, seed: int,
) -> tuple[list[str], dict[str, int]]:  # fmt: skip
    """``end`` the service and start it again ``cycles`` times while clients run ``definition`` and tail it.

    ``ends``: the statuses that runs may end with.
    """
    server = Server(directory)
    server.start()
    server.create("kill", definition)
    load = Load(server, seed)
    ended_at = ready_at = datetime.now(UTC)
    async with asyncio.TaskGroup() as group:
        for _ in range(STARTERS):
            group.create_task(load.start_runs())
        for _ in range(TAILERS):
            group.create_task(load.tail_runs())
        for _ in range(cycles):
            await asyncio.sleep(load.random.uniform(*UP_S))
            await asyncio.to_thread(end, server)
            ended_at = datetime.now(UTC)
            await asyncio.to_thread(server.start)
            ready_at = datetime.now(UTC)
        load.running = False
    faults, resumed_s = _compare(server, load, ends, ended_at, ready_at)
    faults += load.order_faults
    exit_code = server.stop()
    if exit_code != 0:
        faults.append(f"the last orderly stop exited {exit_code}")
    faults += [f"process {pid} outlived the service" for pid in _orphans(load.mark)]
    figures = {
        "cycles": cycles,
        "runs": len(load.accepted),
        "events": sum(len(frames) for frames in load.accepted.values()),
        "connections": load.connections,
        "cancels": len(load.cancels),
        "resumed_within_ms": round(resumed_s * 1000),
        "faults": len(faults),
    }
    return faults, figures


def _compare(
    server: Server, load: Load, ends: set[str], ended_at: datetime, ready_at: datetime
) -> tuple[list[str], float]:
    """Return the faults, and the longest that a run had to wait after the last start to be taken up."""
    faults, resumed_s = [], 0.0
    for run_id, frames in load.accepted.items():
        run = server.run(run_id)
        if run["status"] not in ends:
            faults.append(f"{run_id} is {run['status']}: {run['error']}")
        events = _stored(server, run_id)
        faults += faults_of_history(run_id, events) + faults_of_frames(run_id, frames, events)
        waited_s = _waited_s(events, ended_at, ready_at)
        if waited_s > RESUMED_WITHIN_S:
            faults.append(f"{run_id} was taken up {waited_s:.1f} s after the service was ready")
        resumed_s = max(resumed_s, waited_s)
    missing = set(load.accepted) - _listed(server)
    faults += [f"{run_id} was accepted and is not listed" for run_id in sorted(missing)]
    return faults, resumed_s


def _waited_s(events: list[bytes], ended_at: datetime, ready_at: datetime) -> float:
    """Return how long a ready service left a run alone that it found unfinished; 0 for any other run."""
    times = [datetime.fromisoformat(json.loads(event)["timestamp"]) for event in events]
    after = [moment for moment in times if moment > ended_at]
    found = bool(after) and len(after) < len(times)
    return max(0.0, (after[0] - ready_at).total_seconds()) if found else 0.0


def _listed(server: Server) -> set[str]:
    """Return the ids of all runs that the lists have, page by page."""
    found: set[str] = set()
    path = "/api/v2/workflows/runs?limit=100"
    cursor = ""
    while True:
        page = server.get(path + cursor).json
        found |= {run["runId"] for run in page["data"]}
        if page["nextCursor"] is None:
            return found
        cursor = f"&cursor={page['nextCursor']}"


def _stored(server: Server, run_id: str) -> list[bytes]:
    """Return the run's events as the history gives them: the stored bytes."""
    answer = server.get(f"/api/v2/workflows/runs/{run_id}/events?types=all&limit=1000")
    assert answer.status == 200, answer
    return stored_bytes(answer.body)


def stored_bytes(page: bytes) -> list[bytes]:
    """Return the events of a page as they stand in it, byte for byte."""
    text = page.decode()
    decoder = json.JSONDecoder()
    at = text.index('"data":[') + len('"data":[')
    events = []
    while text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        events.append(text[at:end].encode())
        at = end + (text[end] == ",")
    return events


def _orphans(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def main() -> int:
    return program(
        ArgumentParser(description=__doc__), "cycles", 1_000,
        lambda directory, given: asyncio.run(kill_cycles(directory, cycles=given.cycles, seed=given.seed)),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
