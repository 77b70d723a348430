"""DBOS as a process of its own, in a venv of its own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
VENV = HERE.parent.parent / ".cache" / "bench-venv"


def installed() -> bool:
    """Say whether the bench's venv holds DBOS."""
    return any(VENV.glob("lib/python*/site-packages/dbos"))


class Dbos:
    """``durability``: how its SQLite is set. ``chain`` and ``runs`` return seconds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.durability = self._line()

    def chain(self, steps: int) -> float:
        return float(self._ask(f"chain {steps}"))

    def runs(self, count: int, *, at_once: int) -> float:
        return float(self._ask(f"runs {count} {at_once}"))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "DBOS ended"
        return line


@contextmanager
def dbos(directory: Path) -> Iterator[Dbos | None]:
    """Run it on a database in ``directory``; None if it is not installed."""
    if not installed():
        yield None
        return
    process = subprocess.Popen(
        [VENV / "bin" / "python", HERE / "dbos_worker.py", directory / "dbos.sqlite"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Dbos(process)
    finally:
        process.communicate()  # closes its stdin, which ends it
