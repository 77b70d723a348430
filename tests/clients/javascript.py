"""service/web/client.js as Node runs it: a program that watches one run and says what happens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients.client import ROOT, Client, installed
from tests.server import Server

SOURCE = ROOT / "service/web/client.js"
PROGRAM = Path(__file__).parent / "js/watch.mjs"
SMALL = {"type": "command", "config": {"command": "seq", "args": ["{{lines}}"]}}
TRICKY = 'é 😀 \u2028 "\\" \u0000 9007199254740993 \ud7ff\uffff data: x'
# Lines, then a request that a test may hold, then lines again.
DEFINITION = {
    "variables": {"lines": 3, "apiUrl": ""},
    "steps": {
        "before": SMALL,
        "hold": {"type": "http", "config": {"url": "{{apiUrl}}"}, "dependsOn": ["before"]},
        "after": {**SMALL, "dependsOn": ["hold"], "output": {"said": "stdout"}},
        "tricky": {
            "type": "command",
            "config": {"command": "printf", "args": ["%s\\n", TRICKY.replace("\0", "")]},
            "dependsOn": ["hold"],
        },
    },
}
HELD = '"stepId\\":\\"hold\\",\\"level'  # of the first message of the step that is held


class Watching:
    """A watch in Node: what it has printed so far, and how it ended."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def wait_for(self, text: str) -> None:
        self.client.wait_for(text)

    def go_on(self) -> None:
        """Let a program go on that holds."""
        assert self.client.process.stdin is not None
        self.client.process.stdin.write(b"\n")
        self.client.process.stdin.flush()

    def ended(self) -> "Watching":
        """Return it once Node has ended by itself and well: nothing is left that keeps it alive."""
        self.client.ended()
        return self

    def said(self, what: str) -> list[Any]:
        return [
            rest[0] if rest else None for kind, *rest in map(json.loads, self.client.printed) if kind == what
        ]

    @property
    def events(self) -> list[str]:
        """Return the exact text of each event."""
        return self.said("event")

    @property
    def end(self) -> dict[str, Any] | None:
        """Return how the run ended, as the client found."""
        assert self.error is None, self.error
        (end,) = self.said("end")
        return end

    @property
    def error(self) -> dict[str, Any] | None:
        return next(iter(self.said("error")), None)


def watcher(start: Callable[..., Client], client_file: Path) -> Callable[..., Watching]:
    """Return what starts watches: ``watch(url, run_id, transport=…, after=…, …)``, see js/watch.mjs."""
    ws = str(installed(".cache/wscat/node_modules/ws"))

    def watch(url: str, run_id: str, transport: str = "websocket", **options: Any) -> Watching:
        if transport != "sse":
            options["ws"] = ws
        given = json.dumps({"transport": transport, **options})
        return Watching(start("node", str(PROGRAM), str(client_file), url, run_id, given))

    return watch


def texts(server: Server, run_id: str, query: str = "") -> list[str]:
    """Return the text of every event of a finished run, in order, read as NDJSON by a few lines of our own."""
    server.finished(run_id)
    answer = server.get(f"/api/v2/workflows/runs/{run_id}/stream{query}", accept="application/x-ndjson")
    assert answer.status == 200, answer
    return [line for line in answer.body.decode().split("\n") if line]
