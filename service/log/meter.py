"""Whom the log tells what it does, so that it can be counted: nobody, unless there is somebody."""

from typing import Protocol

from service.errors import LogError


class Meter(Protocol):
    """Is told after each commit, on the loop. No call may wait or raise."""

    def committed(self, *, seconds: float, appends: int, events: int, size: int) -> None:
        """The flush of a group took ``seconds``; ``events`` of ``size`` bytes were stored."""
        ...

    def answered(self, *, seconds: float, appends: int) -> None:
        """``appends`` have their answers, ``seconds`` after the turn of the loop in which they were made."""
        ...

    def refused(self, error: LogError) -> None:
        """An append was answered by an error."""
        ...
