"""A client of the guide as a process: what it has printed so far, and how it ended."""

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 30.0
PAGE_TIMEOUT_MS = 30_000  # of whatever a page of a browser is asked to wait for
ROOT = Path(__file__).parent.parent.parent


class Client:
    """A running program. Its stdin stays open, as in a terminal nobody types into."""

    def __init__(self, command: Sequence[str], env: dict[str, str], errors: Path) -> None:
        self.errors = errors
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **env},
            )
        self.printed: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.printed.append(line.decode().rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, text: str) -> None:
        """Return once a printed line holds ``text``."""
        with self._news:
            there = self._news.wait_for(lambda: any(text in line for line in self.printed), TIMEOUT_S)
        assert there, (text, self.printed, self.errors.read_text())

    def ended(self) -> list[str]:
        """Return all lines that it printed, after it has ended by itself and well."""
        assert self.process.wait(TIMEOUT_S) == 0, self.errors.read_text()
        self._reader.join(TIMEOUT_S)
        return self.printed

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(TIMEOUT_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def installed(place: str) -> Path:
    """Return a program that scripts/test installs."""
    path = ROOT / place
    assert path.exists(), f"{path} is not there; scripts/test installs it"
    return path
