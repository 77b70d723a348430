"""An attacked service under observation: it must live on, as small as it was, and have nothing to be sorry for."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.faults.kill import stored_bytes
from tests.server import Server

MIB = 1024 * 1024
RETURN_TIMEOUT_S = 90.0  # for what the service lets go of by its own deadlines, the longest being 60 s


@contextmanager
def attacked(**settings: object) -> Iterator[Server]:
    """Run the service on an empty database of its own."""
    settings = {"TAILRACE_DRAIN_TIMEOUT_S": 1} | settings
    with TemporaryDirectory(prefix="attacked-") as directory, Server(Path(directory), **settings) as server:
        yield server


class Size:
    """What a service holds: memory, open files, threads, processes below it."""

    def __init__(self, pid: int) -> None:
        process = Path(f"/proc/{pid}")
        self.rss_bytes = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.files = len(list((process / "fd").iterdir()))
        self.threads = len(list((process / "task").iterdir()))

    @classmethod
    def of(cls, server: Server) -> Self:
        assert server.process is not None
        return cls(server.process.pid)

    def __repr__(self) -> str:
        return f"{self.rss_bytes / MIB:.1f} MiB, {self.files} files, {self.threads} threads"


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> bool:
    """Say whether ``condition`` comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def faults_after(server: Server, before: Size, *, grown_bytes_max: int, files_more: int = 2) -> list[str]:
    """Return what the attack has left behind: a dead service, files, memory, tracebacks, a run that fails."""
    if server.process is None or server.process.poll() is not None:
        return [f"the service has ended: {server.diagnostics.read_text()[-2000:]}"]
    faults = []
    if not until(lambda: Size.of(server).files <= before.files + files_more, RETURN_TIMEOUT_S):
        faults.append(f"open files have not returned: {before} became {Size.of(server)}")
    after = Size.of(server)
    if after.rss_bytes - before.rss_bytes > grown_bytes_max:
        faults.append(f"memory has not returned: {before} became {after}")
    server.create(
        "after", {"steps": {"say": {"type": "command", "config": {"command": "echo", "args": ["on"]}}}}
    )
    run = server.finished(server.execute("after"))
    if run["status"] != "success":
        faults.append(f"a run afterwards is {run['status']}: {run['error']}")
    return faults + regrets(server)


def regrets(server: Server) -> list[str]:
    """Return the lines of the diagnostics that the service says as errors, and whatever is no line of ours."""
    found = []
    for line in server.diagnostics.read_text().splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            found.append(f"not a line of diagnostics: {line[:300]}")
            continue
        if said["level"] in {"error", "critical"} or "exception" in said:
            found.append(f"an error in the diagnostics: {line[:3000]}")
    return found


def ended_requests(server: Server, path_end: str) -> int:
    """Return how many requests whose path ends so are over, as the diagnostics tell."""
    return server.diagnostics.read_text().count(f'{path_end}"')


def stored(server: Server, run_id: str) -> list[bytes]:
    """Return the step events that a run has so far as the history has them, byte for byte."""
    events: list[bytes] = []
    while True:
        answer = server.get(f"/api/v2/workflows/runs/{run_id}/events?limit=1000&after={len(events)}")
        assert answer.status == 200, answer
        page = stored_bytes(answer.body)
        events += page
        if not page:
            return events
