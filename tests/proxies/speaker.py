"""A run that says what it is told: its one step prints each line as it comes, until it is told to end."""

import os
from pathlib import Path
from typing import Self

from tests.proxies.ways import path_of
from tests.server import Server

SAY = 'while read -r line && [ "$line" != "the end" ]; do printf "%s\\n" "$line"; done < "$0"'


class Speaker:
    """``with Speaker(server, path) as run:`` is running; at the end it is told to end."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        os.mkfifo(path)
        # Open for both, so that neither side waits for the other to open it.
        self._pipe = os.open(path, os.O_RDWR)
        step = {"type": "command", "config": {"command": "sh", "args": ["-c", SAY, str(path)]}}
        server.create(path.name, {"steps": {"say": step}})
        self.id = server.execute(path.name)
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            os.close(self._pipe)

    def say(self, line: str) -> None:
        """Print ``line``."""
        os.write(self._pipe, line.encode() + b"\n")

    def end(self) -> None:
        """End, and return once the run is over."""
        if not self._ended:
            self._ended = True
            self.say("the end")
            assert self.server.finished(self.id, 60)["status"] == "success"


def stored(server: Server, run_id: str) -> list[bytes]:
    """Return the events of a finished run as the service itself gives them."""
    return server.get(path_of(run_id), accept="application/x-ndjson").body.splitlines()
