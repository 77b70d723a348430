"""A client of a service in trouble: it starts runs, remembers what it was told, and holds the service to it."""

import time
import uuid

from tests.faults.checker import faults_of_history
from tests.faults.kill import stored_bytes
from tests.server import Answer, Server

RUNS = "/api/v2/workflows/runs"
RESUME_TIMEOUT_S = 30.0
TALK = "for i in 1 2 3 4 5 6; do echo line $i of a run that says something; done"
DEFINITION = {
    "steps": [
        {"id": "a", "type": "wait", "config": {"duration": 1}},
        {"id": "b", "type": "command", "dependsOn": ["a"], "onInterrupt": "retry",
         "config": {"command": "sh", "args": ["-c", TALK]}},
    ],
}  # fmt: skip


class Witness:
    """``faults`` is what was wrong; ``accepted``, ``refused`` and ``unknown`` are runs by what execute said."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.faults: list[str] = []
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self._known: dict[str, bytes] = {}  # a run, and what its stream once was
        server.create("talk", DEFINITION)
        self.know(server.execute("talk"))

    def know(self, run_id: str) -> None:
        """Let a run end; from now on it must be read the same."""
        self.server.finished(run_id)
        self._known[run_id] = self._stream(run_id).body

    def start_run(self) -> Answer:
        """Ask for a run and note the answer."""
        run_id = str(uuid.uuid4())
        answer = self.server.post("/api/v2/workflows/talk/execute", {"runId": run_id})
        if answer.status == 202:
            self.accepted.append(run_id)
        elif answer.status == 503 and "retry-after" in answer.headers:
            outcome = answer.json.get("outcome")
            if outcome not in {"unknown", "not stored"}:
                self.faults.append(f"a 503 without its outcome: {answer}")
            (self.unknown if outcome == "unknown" else self.refused).append(run_id)
        else:
            self.faults.append(f"execute answered {answer}")
        return answer

    def reads_on(self) -> None:
        """See that what was finished is read as ever, by stream and by history."""
        for run_id, known in self._known.items():
            answer = self._stream(run_id)
            if (answer.status, answer.body) != (200, known):
                self.faults.append(f"the stream of {run_id} is another: {answer}")
            answer = self._events(run_id)
            if answer.status != 200 or b"\n".join(stored_bytes(answer.body)) != known.strip():
                self.faults.append(f"the history of {run_id} is another: {answer}")

    def resumes(self) -> bool:
        """See that runs are accepted again, by the same process, and end."""
        deadline = time.monotonic() + RESUME_TIMEOUT_S
        while (answer := self.start_run()).status != 202:
            if time.monotonic() > deadline:
                self.faults.append(f"nothing is accepted again: {answer}")
                return False
            time.sleep(0.05)
        self.ends(self.accepted[-1])
        return True

    def ends(self, run_id: str) -> None:
        """See that a run ends and has a whole history."""
        deadline = time.monotonic() + RESUME_TIMEOUT_S
        while (answer := self.server.get(f"{RUNS}/{run_id}")).status != 200 or answer.json["status"] in {
            "queued",
            "running",
        }:
            if time.monotonic() > deadline:
                self.faults.append(f"{run_id} does not end: {answer}")
                return
            time.sleep(0.02)
        answer = self._events(run_id)
        if answer.status != 200:
            self.faults.append(f"{run_id} cannot be read: {answer}")
        else:
            self.faults += faults_of_history(run_id, stored_bytes(answer.body))

    def hold_to_it(self) -> None:
        """See that every answer has come true: accepted runs end, refused ones are not there."""
        for run_id in self.accepted:
            self.ends(run_id)
        for run_id in self.unknown:
            if self._events(run_id).status == 200:
                self.ends(run_id)
        for run_id in self.refused:
            if (answer := self._events(run_id)).status != 404:
                self.faults.append(f"{run_id} was said not to be stored: {answer}")

    def _stream(self, run_id: str) -> Answer:
        return self.server.get(f"{RUNS}/{run_id}/stream?types=all", accept="application/x-ndjson")

    def _events(self, run_id: str) -> Answer:
        return self.server.get(f"{RUNS}/{run_id}/events?types=all&limit=1000")
