"""Who forwards events to watchers: ours, the Go hubs, NATS. Each is fed by the same producer."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Literal

from msgspec import Struct, json

from tests.bench import hub
from tests.bench.client import HERE, built
from tests.bench.client.crowd import Crowd, Place
from tests.bench.hub import hub as running_hub
from tests.bench.nats_peer import Nats
from tests.bench.running import RUNS
from tests.bench.seeded import EVENT_BYTES, STEP, line_room
from tests.server import Server

Kind = Literal["ours", "guide's hub", "best hub", "NATS"]
RUN_ID_CHARS = 10  # a UUID would leave an event of EVENT_BYTES no room for a message
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SUBJECT = "ev.run"

_numbers = count(1)


class Fed(Struct, frozen=True):
    """A forwarding process and where it is watched; ``producers`` will ask the crowd for orders."""

    pid: int
    place: Place
    producers: int = 1

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


def ours(running: Server, crowd: Crowd, *, runs: int = 1) -> Fed:
    """Start runs whose command prints what ``crowd`` orders, and ends with it."""
    assert running.process is not None
    spec = {"control": crowd.control, "bytes": line_room("r" * RUN_ID_CHARS)}
    command = {"command": str(built(HERE)), "args": ["produce", "{{spec}}"]}
    running.create("produce", {"steps": {STEP: {"id": STEP, "type": "command", "config": command}}})
    paths = []
    for _ in range(runs):
        run_id = f"fed-{next(_numbers):0{RUN_ID_CHARS - 4}}"
        body = {"runId": run_id, "variables": {"spec": json.encode(spec).decode()}}
        answer = running.post("/api/v2/workflows/produce/execute", body)
        assert answer.status == 202, answer
        paths.append(f"{RUNS}/{run_id}/stream")
    return Fed(running.process.pid, Place(f"127.0.0.1:{running.port}", paths), runs)


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


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Return the memory that a process has in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
