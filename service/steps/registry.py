"""The step types there are. Another one is one more file with a ``Step``, and a line here."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from service.steps import Step
from service.steps.command import Command
from service.steps.containment import Containing
from service.steps.http import Http
from service.steps.wait import Wait


@runtime_checkable
class Closing(Protocol):
    """A step type that holds something between attempts."""

    async def close(self) -> None:
        """Let go of it. A later attempt takes it up again."""
        ...


def registry(
    *, commands: frozenset[str], http_allow: tuple[str, ...] = (), output_bytes_max: int, files_max: int = 0
) -> dict[str, Step]:
    """Return the step types by name.

    ``commands``: executables that may run, by name or path, ``*`` for any. ``http_allow``: hosts and
    CIDRs outside the global internet that may be reached; raises ValueError for what is neither.
    ``output_bytes_max``: what one command step may record of its output. ``files_max``: how many files a
    command may open, 0 for as many as this process.
    """
    http: Step = Http(http_allow=http_allow)
    command: Step = Command(commands=commands, output_bytes_max=output_bytes_max, files_max=files_max)
    wait: Step = Wait()
    return {step.type: step for step in (http, command, wait)}


def containment(steps: Mapping[str, Step]) -> Containing:
    """Return what keeps commands from outliving their attempt, for the diagnostics; blocks ≤ 0.1 s.

    Raises OSError when no command can be started at all.
    """
    command = steps["command"]
    assert isinstance(command, Command)
    return command.containment()


async def close(steps: Mapping[str, Step]) -> None:
    """Let go of what the step types hold. Attempts that still run are ended."""
    for step in steps.values():
        if isinstance(step, Closing):
            await step.close()
