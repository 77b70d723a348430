"""Whom the engine tells what it does, so that it can be counted: nobody, unless there is somebody."""

from typing import Protocol

from msgspec import UnsetType

from service.domain.events import Payload, RunComplete, StepComplete, StepLog
from service.domain.run import Run


class Meter(Protocol):
    """Is told on the loop. No call may wait or raise. ``kind`` is a step's type."""

    def attempt_began(self, kind: str) -> None:
        """An attempt runs."""
        ...

    def attempt_ended(self, kind: str) -> None:
        """It runs no more, however it ended."""
        ...

    def step_repeated(self, kind: str, outcome: str) -> None:
        """An attempt ended so, and another will follow."""
        ...

    def step_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """A step of a run is over, ``seconds`` after its first attempt began (0: it never did)."""
        ...

    def run_ended(self, outcome: str, seconds: float) -> None:
        """A run is sealed, ``seconds`` after it was accepted."""
        ...


def measure(meter: Meter, run: Run, event: Payload) -> None:
    """Tell what ``event``, just decided, means for the figures."""
    match event:
        case StepComplete():
            kind = run.steps[event.step_id].spec.type
            meter.step_ended(kind, event.status, event.duration / 1000)
        case StepLog() if not isinstance(event.outcome, UnsetType):
            meter.step_repeated(run.steps[event.step_id].spec.type, event.outcome)
        case RunComplete():
            meter.run_ended(event.status, event.duration / 1000)
        case _:
            pass
