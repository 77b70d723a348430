"""Attempts without an engine: what a step is given, and what it said."""

from typing import Any

from service.steps import Attempt, Emit


class Said(Emit):
    """Keeps what a step emits, and the size of each call."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.calls: list[int] = []

    def at_once(self, level: str, lines: list[str]) -> bool:
        self.calls.append(len(lines))
        self.lines += [(level, line) for line in lines]
        return True

    async def room(self) -> None:
        """There is always room."""

    def at(self, level: str) -> list[str]:
        return [line for each, line in self.lines if each == level]


def attempt(config: dict[str, Any], *, emit: Any = None, elapsed_ms: int = 0) -> Attempt:
    return Attempt(config, 1, "run-1/step-1", elapsed_ms, emit or Said())
