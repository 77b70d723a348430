"""Schemathesis, a fuzzer that others have written, on our OpenAPI document; it has a virtual environment of its own.

``scripts/install-schemathesis`` makes that: what it needs must not reach ours.
"""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.attacks.watched import attacked, regrets
from tests.server import ROOT, Server

PROGRAM = ROOT / ".cache/schemathesis-venv/bin/schemathesis"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method"
)
RUN_TIMEOUT_S = 3_600
RUNS = "/api/v2/workflows/runs"


def why_not() -> str | None:
    """Return why this cannot be tried here, None if it can."""
    return None if PROGRAM.exists() else "schemathesis is missing: scripts/install-schemathesis"


def run(count: int, seed: int) -> list[str]:
    """Have about ``count`` cases tried; return what was found."""
    with attacked(TAILRACE_COMMANDS="true") as server, ending_runs(server):
        server.create("w", {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}})
        server.execute("w")
        document = server.get("/schema/openapi.json").json
        operations = sum(map(len, document["paths"].values()))
        described = server.db.with_name("openapi.json")
        described.write_text(json.dumps(without_waiting(document)))
        tried = subprocess.run(
            [PROGRAM, "run", described, "--url", server.url, "--phases", "fuzzing", "--checks", CHECKS,
             "--max-examples", str(max(1, count // operations)), "--seed", str(seed), "--continue-on-failure",
             "--request-timeout", "30", "--no-color", "--warnings", "off"],
            cwd=server.db.parent, capture_output=True, text=True, timeout=RUN_TIMEOUT_S,
        )  # fmt: skip
        faults = regrets(server)
    cases = re.search(r"(\d+) generated", tried.stdout)
    if tried.returncode != 0:
        faults.append(f"schemathesis says: {tried.stdout[-8_000:]} {tried.stderr[-2_000:]}")
    elif cases is None or int(cases[1]) < count // 3:
        faults.append(f"too few cases were tried: {tried.stdout[-1_000:]}")
    return faults


@contextmanager
def ending_runs(server: Server) -> Iterator[None]:
    """Cancel every run that goes on: cases made from the document wait for days, and streams of them do not end."""
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.5):
            for status in ("queued", "running"):
                with suppress(OSError, ValueError, KeyError):
                    for run in server.get(f"{RUNS}?status={status}&limit=1000").json["data"]:
                        server.post(f"{RUNS}/{run['runId']}/cancel", {})

    cancelling = threading.Thread(target=cancel, daemon=True)
    cancelling.start()
    try:
        yield
    finally:
        over.set()
        cancelling.join()


def without_waiting(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without ``wait``: asked to wait for five minutes, the service does."""
    for operations in document["paths"].values():
        for operation in operations.values():
            named = [
                parameter.get("name", parameter.get("$ref", ""))
                for parameter in operation.get("parameters", ())
            ]
            operation["parameters"] = [
                parameter
                for name, parameter in zip(named, operation.get("parameters", ()), strict=True)
                if name.rpartition("/")[2] != "wait"
            ]
    return document
