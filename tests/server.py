"""The real service as a process of its own, and the small client that tests talk to it with."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from service.access import KeyFile

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class Answer:
    """An HTTP response: ``status``, ``headers`` (lower case), ``body``; ``json`` decodes it."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:2000].decode(errors='replace')}>"


class Server:
    """``with Server(tmp_path) as server:`` gives a ready service on a free loopback port.

    ``env`` adds settings: ``Server(tmp_path, TAILRACE_MAX_RUNS=2)``. The port stays over a restart.
    """

    def __init__(self, directory: Path, **env: object) -> None:
        self.db = directory / "tailrace.db"
        self.diagnostics = directory / "diagnostics.txt"  # what all its lives wrote on stderr
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.key: str | None = None  # that the requests below carry, unless they say something else
        self._env = {name: str(value) for name, value in env.items()}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def create_key(self, name: str, rights: str = "read,run") -> str:
        """Create a key and return it, as ``tailrace keys create`` would."""
        keys = KeyFile(self.db.with_name(f"{self.db.name}.keys"))
        return keys.create(name, tuple(rights.split(",")), int(time.time()))[1]

    def revoke_keys(self, *keys: str) -> None:
        """Revoke keys, as ``tailrace keys revoke`` would."""
        ids = tuple(key.split("_")[1] for key in keys)
        KeyFile(self.db.with_name(f"{self.db.name}.keys")).revoke(ids, int(time.time()))

    def tailrace(
        self, *words: str, status: int = 0, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a verb of the command line beside the database."""
        command = [sys.executable, "-W", "error", "-m", "service", *words]
        env = os.environ | {"TAILRACE_DB": str(self.db), "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            command,
            env=env,
            cwd=self.db.parent,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert ended.returncode == status, ended
        return ended

    # Its life

    def start(self) -> None:
        """Start it and return once it is ready."""
        assert self.process is None
        env = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
        env |= {"TAILRACE_DB": str(self.db), "TAILRACE_PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        with self.diagnostics.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "service", "serve"],
                env=env | self._env, cwd=self.db.parent, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        if "://" not in line:
            self._ended()
            raise AssertionError(f"it did not start: {self.diagnostics.read_text()}")
        self.port = urlsplit(line.split()[-1]).port or 0
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill_hard()
            raise

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (answer := self.get("/ready")).status != 200:
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)

    def stop(self) -> int:
        """End it in order (SIGTERM) and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self._ended()

    def kill_hard(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def restart(self) -> None:
        """Start it again on the same database and port, after an orderly stop if it still runs."""
        if self.process is not None:
            assert self.stop() == 0
        self.start()

    def _ended(self) -> int:
        process, self.process = self.process, None
        assert process is not None
        assert process.stdout is not None
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"it did not stop: {self.diagnostics.read_text()}") from None
        finally:
            process.stdout.close()

    # Its client

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request; ``body`` is sent as JSON, bytes as they are (with your own content-type)."""
        headers = dict(headers or {})
        if self.key is not None:
            headers = {"authorization": f"Bearer {self.key}"} | headers
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.request(
            "POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def create(self, workflow_id: str, definition: dict[str, Any]) -> None:
        """Create a workflow."""
        body = {"workflowId": workflow_id, "definition": definition}
        answer = self.post("/api/v2/workflows", body)
        assert answer.status in {200, 201}, answer

    def execute(self, workflow_id: str, **variables: Any) -> str:
        """Start a run and return its id."""
        answer = self.post(f"/api/v2/workflows/{workflow_id}/execute", {"variables": variables})
        assert answer.status == 202, answer
        return answer.json["runId"]

    def listed(self, path: str, timeout_s: float = 30.0) -> Answer:
        """Return what is there once the lists have come so far: under load, they may be late."""
        deadline = time.monotonic() + timeout_s
        while (answer := self.get(path)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert answer.status == 200, answer
        return answer

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the run as it is now."""
        return self.listed(f"/api/v2/workflows/runs/{run_id}").json

    def finished(self, run_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Return the run once it is over."""
        deadline = time.monotonic() + timeout_s
        while (run := self.run(run_id))["status"] in {"queued", "running"}:
            assert time.monotonic() < deadline, run
            time.sleep(0.02)
        return run
