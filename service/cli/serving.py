"""The process that serves a log, as the system shows it: its settings, its limits, where it listens."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

LISTEN = "0A"  # the state of a socket in /proc/net/tcp


class Serving(NamedTuple):
    """A process that holds the lock of a log; ``pid`` is None when it did not say."""

    pid: int | None

    @classmethod
    def of(cls, db: Path) -> Self | None:
        """Return who serves ``db``, None if nobody does. Raises OSError."""
        from service.log.lock import LogInUse, at_rest

        try:
            with at_rest(db):
                return None
        except LogInUse as error:
            return cls(error.pid)

    def environ(self) -> Mapping[str, str] | None:
        """Return its environment, None where it may not be seen."""
        try:
            variables = self._read("environ").split("\0")
        except OSError:
            return None
        return {name: value for name, equals, value in (each.partition("=") for each in variables) if equals}

    def flags(self) -> dict[str, str]:
        """Return the settings that its command line gives."""
        from service.ops.settings import SETTINGS

        names = {setting.flag: setting.name for setting in SETTINGS}
        words = iter(self._read("cmdline").split("\0"))
        found = {}
        for word in words:
            flag, equals, value = word.partition("=")
            if flag in names:
                found[names[flag]] = value if equals else next(words, "")
        return found

    def open_files(self) -> int | None:
        """Return how many files it may have open."""
        try:
            found = re.search(r"^Max open files +(\d+)", self._read("limits"), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) if found else None

    def ports(self) -> list[int]:
        """Return the ports on which it listens, none where they may not be seen."""
        place = Path(f"/proc/{self.pid}")
        try:
            sockets = {str(fd.readlink()) for fd in (place / "fd").iterdir()}
            lines = [
                line.split()
                for name in ("tcp", "tcp6")
                for line in self._read(f"net/{name}").splitlines()[1:]
            ]
        except OSError:
            return []
        return sorted(
            {int(line[1].rpartition(":")[2], 16) for line in lines
             if line[3] == LISTEN and f"socket:[{line[9]}]" in sockets}
        )  # fmt: skip

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_bytes().decode(errors="surrogateescape")
