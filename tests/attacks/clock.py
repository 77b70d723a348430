"""The wall clock jumps ten days back and ahead, in mid-run and over restarts: only labels change.

libfaketime stands before the clock; the service reads the time from a file that is written meanwhile.
"""

import json
import math
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.attacks.watched import attacked, regrets
from tests.faults.checker import faults_of_frames, faults_of_history
from tests.faults.kill import stored_bytes
from tests.server import Server

W = "/api/v2/workflows"
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
LOAD = {"steps": {
    "say": {"type": "command", "config": {"command": "sh", "args": ["-c", "for i in $(seq 60); do echo $i; sleep 0.02; done"]}},
    "nap": {"type": "wait", "config": {"duration": "1200ms"}},
    "slow": {"type": "command", "onError": "continue", "config": {"command": "sleep", "args": ["600"], "timeout": "900ms"}},
    "again": {"type": "command", "onError": "continue", "retry": {"maxAttempts": 3, "interval": "300ms"}, "config": {"command": "false"}},
    "end": {"type": "wait", "dependsOn": ["say", "nap", "slow", "again"], "config": {"duration": 1}},
}, "timeout": "60s"}  # fmt: skip
RUNS = 4
OFFSETS = ["-10d", "+10d", "-3650d", "+3650d", "+0"]


def why_not() -> str | None:
    """Return why this cannot be tried here, None if it can."""
    return None if LIBRARIES else "libfaketime is missing: scripts/install-debian faketime"


def run(count: int, seed: int) -> list[str]:
    """Let the clock jump ``count`` times under load; return what noticed it."""
    assert why_not() is None, why_not()
    chance = random.Random(seed)
    faults: list[str] = []
    jumps = 0
    with attacked(
        LD_PRELOAD=LIBRARIES[0], FAKETIME_TIMESTAMP_FILE="clock", FAKETIME_NO_CACHE=1, FAKETIME_DONT_FAKE_MONOTONIC=1,
        TAILRACE_DRAIN_TIMEOUT_S=30,
    ) as server:  # fmt: skip
        server.create("load", LOAD)
        clock = server.db.with_name("clock")
        for number in range(count):
            run_ids = [server.execute("load") for _ in range(RUNS)]
            frames: dict[str, list[bytes]] = {run_id: [] for run_id in run_ids}
            tailers = [
                threading.Thread(target=_tail, args=(server, run_id, frames[run_id]), daemon=True)
                for run_id in run_ids
            ]
            for tailer in tailers:
                tailer.start()
            time.sleep(chance.uniform(0.1, 0.9))
            offset = chance.choice(OFFSETS) if number > 1 else OFFSETS[number]
            _jump(clock, offset)
            restarts = number % 3 == 2
            if restarts:
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)  # a drain: what runs may end
                if server._ended() != 0:
                    faults.append("it did not end in order")
                server.start()
            for run_id in run_ids:
                faults += _faults_of_run(server, server.finished(run_id), restarted=restarts)
            for tailer in tailers:
                tailer.join(30)
            for run_id in run_ids:
                jumps += _has_jumped(frames[run_id])
                faults += faults_of_frames(run_id, frames[run_id], _everything(server, run_id))
        if not jumps:
            faults.append("the clock has not jumped: this has proved nothing")
        return faults + regrets(server)


def _jump(clock: Path, offset: str) -> None:
    """Let the clock be so far off; libfaketime ends the process when it finds the file empty."""
    new = clock.with_suffix(".new")
    new.write_text(offset)
    new.replace(clock)


def _faults_of_run(server: Server, run: dict, *, restarted: bool) -> list[str]:
    faults = [] if run["status"] == "success" else [f"a run is {run['status']}: {run['error']}"]
    events = _everything(server, run["runId"])
    faults += faults_of_history(run["runId"], events)
    read = [json.loads(event) for event in events]
    # Until a run has its turn, and from one process to the next, there is no other clock: that is as long as
    # the wall says.
    waited_ms = (_time(read[1]) - _time(read[0])) / timedelta(milliseconds=1)
    for event in read:
        duration_ms = event["payload"].get("duration", 0)
        most_ms = 30_000 + (waited_ms if event["type"] == "run_complete" else 0)
        if not 0 <= duration_ms < (math.inf if restarted else most_ms):
            faults.append(f"{event['type']} took {duration_ms} ms")
    steps = {step["stepId"]: step for step in server.listed(f"{W}/runs/{run['runId']}/steps").json["data"]}
    expected = {"say": "success", "nap": "success", "slow": "failed", "again": "failed", "end": "success"}
    told = {step_id: step["status"] for step_id, step in steps.items()}
    return faults if told == expected else [*faults, f"the steps are {told}"]


def _has_jumped(events: list[bytes]) -> bool:
    """Say whether the labels of one run are days apart, or days away from the time that it is."""
    times = [_time(json.loads(event)) for event in events] + [datetime.now(UTC)]
    return max(times) - min(times) > timedelta(days=5)


def _time(event: dict) -> datetime:
    return datetime.fromisoformat(event["timestamp"])


def _tail(server: Server, run_id: str, frames: list[bytes]) -> None:
    """Follow a run to its end, over as many connections as that takes."""
    while True:
        try:
            url = f"{server.ws_url}{W}/runs/{run_id}/stream?after={len(frames)}"
            with connect(url, compression=None, close_timeout=1) as stream:
                while True:
                    frames.append(stream.recv(decode=False))
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == 1000:
                return
        except Exception:
            time.sleep(0.1)  # it restarts


def _everything(server: Server, run_id: str) -> list[bytes]:
    return stored_bytes(server.get(f"{W}/runs/{run_id}/events?types=all&limit=1000").body)
