"""Step types: each knows one part of the outside world, and nothing of runs, events or the log.

Another type is one more file with a ``Step`` and a line in ``registry.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from service.domain.events import Error, Level
from service.errors import Fault


class Emit(Protocol):
    """Where an attempt's lines go, which are recorded in order."""

    async def __call__(self, level: Level, lines: Sequence[str]) -> None:
        """Record ``lines``, and return once the run can take more."""
        if not self.at_once(level, lines):
            await self.room()

    def at_once(self, level: Level, lines: Sequence[str]) -> bool:
        """Record ``lines``; where it returns False, say no more until there is ``room``."""
        ...

    async def room(self) -> None:
        """Return once the run can take more."""
        ...


class Attempt(Struct, frozen=True):
    """One try of one step: what to do, and where its lines go.

    ``config`` is rendered: no templates are left in it. A step that reads lines from somewhere must stop
    reading while ``emit`` has no room. ``idempotency_key`` is the same for every attempt of the step.
    ``elapsed_ms``: since the step's first attempt began. ``trace``: the headers by which what it asks joins
    the caller's trace, if there is one (W3C Trace Context). ``timeout_ms``: the step's own, if any, which the
    engine enforces by cancelling ``run``.
    """

    config: Mapping[str, Any]
    number: int
    idempotency_key: str
    elapsed_ms: int
    emit: Emit
    trace: Mapping[str, str] = {}
    timeout_ms: int | None = None


class Outcome(Struct, frozen=True):
    """How an attempt ended: an expected end is a value, never an exception.

    ``document`` is what ``output`` mapping looks into; ``recorded`` (None: the same) is what the event keeps
    of it, and what ``steps.<id>.output`` shows afterwards.
    """

    status: Literal["success", "failed", "timeout"]
    document: dict[str, Any]
    recorded: dict[str, Any] | None = None
    error: Error | None = None


class Step(Protocol):
    """A step type."""

    type: str
    holds_slot: bool  # False: an attempt only waits and does not count against the parallel bounds

    def check(self, config: Mapping[str, Any], pointer: str) -> list[Fault]:
        """Return every fault of an unrendered ``config``; strings that hold a template pass as values."""
        ...

    def repeatable(self, config: Mapping[str, Any]) -> bool:
        """Say whether an interrupted attempt may be repeated without being asked to (GET, a wait)."""
        ...

    async def run(self, attempt: Attempt) -> Outcome:
        """Perform the attempt. When cancelled, leave nothing of it running and let the cancellation through.

        Raises only for what is a fault of ours.
        """
        ...
