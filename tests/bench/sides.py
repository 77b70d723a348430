"""Who forwards events to watchers: ours, the Go hubs, NATS. Each is fed by the same producer."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Literal

from msgspec import Struct, json

from tests.bench import hub
from tests.bench.client import HERE, built
from tests.bench.client.crowd import Crowd, Place
from tests.bench.hub import hub as running_hub
from tests.bench.nats_peer import Nats
from tests.bench.running import RUNS, cpu_s
from tests.bench.seeded import EVENT_BYTES, STEP, line_room
from tests.server import Server

Kind = Literal["ours", "guide's hub", "best hub", "NATS"]
RUN_ID_CHARS = 10  # a UUID would leave an event of EVENT_BYTES no room for a message
SUBJECT = "ev.run"

_numbers = count(1)


class Fed(Struct, frozen=True):
    """A forwarding process and where it is watched."""

    pid: int
    place: Place

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has used."""
        return cpu_s(self.pid)


def kinds(running_nats: Nats | None) -> list[Kind]:
    """Return whom there is to measure on this machine, ourselves first."""
    found: list[Kind] = ["ours"]
    if hub.installed():
        found += ["guide's hub", "best hub"]
    if running_nats is not None:
        found.append("NATS")
    return found


@contextmanager
def fed(kind: Kind, crowd: Crowd, running: Server, running_nats: Nats | None) -> Iterator[Fed]:
    """Feed that side for ``crowd``, which must end within this context."""
    with ExitStack() as stack:
        if kind == "ours":
            yield ours(running, crowd)
        elif kind == "NATS":
            assert running_nats is not None
            yield stack.enter_context(_nats(running_nats, crowd))
        else:
            found = stack.enter_context(running_hub("best" if kind == "best hub" else "guide", crowd.control))
            yield Fed(found.pid, Place(f"127.0.0.1:{found.port}", ["/"]))


def ours(running: Server, crowd: Crowd) -> Fed:
    """Start a run whose command prints what ``crowd`` orders, and ends with it."""
    spec = {"control": crowd.control, "bytes": line_room("r" * RUN_ID_CHARS)}
    return _runs(running, ["produce", json.encode(spec).decode()], 1)


@contextmanager
def many_of_ours(running: Server, crowd: Crowd, runs: int) -> Iterator[Fed]:
    """Start ``runs`` with a command each; all of them print what one producer writes for them."""
    door = f"@tailrace-bench-{os.getpid()}"
    spec = {"control": crowd.control, "bytes": line_room("r" * RUN_ID_CHARS), "door": door, "lent": runs}
    producer = subprocess.Popen([built(HERE), "produce", json.encode(spec)], stdout=subprocess.PIPE)
    assert producer.stdout is not None
    try:
        producer.stdout.readline()  # its door is open
        yield _runs(running, ["lend", door], runs)
    finally:
        producer.terminate()
        producer.wait(30)
        producer.stdout.close()


def _runs(running: Server, args: list[str], count: int) -> Fed:
    assert running.process is not None
    command = {"command": str(built(HERE)), "args": [args[0], "{{said}}"]}
    running.create("produce", {"steps": {STEP: {"id": STEP, "type": "command", "config": command}}})
    paths = []
    for _ in range(count):
        run_id = f"fed-{next(_numbers):0{RUN_ID_CHARS - 4}}"
        body = {"runId": run_id, "variables": {"said": args[1]}}
        answer = running.post("/api/v2/workflows/produce/execute", body)
        assert answer.status == 202, answer
        paths.append(f"{RUNS}/{run_id}/stream")
    return Fed(running.process.pid, Place(f"127.0.0.1:{running.port}", paths))


@contextmanager
def _nats(running: Nats, crowd: Crowd) -> Iterator[Fed]:
    spec = {
        "control": crowd.control,
        "bytes": EVENT_BYTES - len('{"message":""}'),
        "nats": f"127.0.0.1:{running.port}",
        "subject": SUBJECT,
    }
    producer = subprocess.Popen([built(HERE), "produce", json.encode(spec)])
    try:
        yield Fed(running.pid, Place(f"127.0.0.1:{running.websocket_port}", [SUBJECT], "nats"))
    finally:
        producer.terminate()
        producer.wait(30)
