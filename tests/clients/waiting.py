"""A run that waits for a test, so that all it says from then on is new."""

from pathlib import Path

from tests.clients.between import Relay, until
from tests.clients.javascript import texts
from tests.server import Server

AWAY_S = 2.0  # longer than such a run takes to end once it may


class Waiting:
    """A run that has said that it waits. ``new``: all that it says once it is let go on."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._server = server
        self._gate = directory / "gate"
        script = 'echo waiting; until [ -e "$0" ]; do sleep 0.05; done; echo done'
        wait = {
            "type": "command",
            "config": {"command": "sh", "args": ["-c", script, str(self._gate)]},
            "onInterrupt": "retry",
        }
        after = {"type": "command", "config": {"command": "true"}, "dependsOn": ["wait"]}
        server.create(directory.name, {"steps": {"wait": wait, "after": after}})
        self.id = server.execute(directory.name)
        until(lambda: b"waiting" in server.get(f"/api/v2/workflows/runs/{self.id}/events").body)

    def go_on(self) -> None:
        """Let it go on; returns when it is over."""
        self.let_go()
        self._server.finished(self.id)

    def let_go(self) -> None:
        self._gate.touch()

    def miss(self, relay: Relay) -> None:
        """Cut off a client that has been told where its stream begins, and let it miss all the rest."""
        relay.wait_for(b"stream.caught_up")
        relay.cut()
        self.go_on()

    @property
    def new(self) -> list[str]:
        events = texts(self._server, self.id)
        return events[next(n for n, text in enumerate(events) if '"waiting"' in text) + 1 :]
