"""One attempt of a step: render its config, perform it within its timeout, report how it ended."""

import asyncio
from collections.abc import Mapping, Sequence
from traceback import format_exception
from typing import Any

import structlog

from service.domain.decide import Ended
from service.domain.definition import StepSpec
from service.domain.events import UNENCODABLE, Error, Level
from service.domain.expressions import ExpressionFailed
from service.domain.run import INTERNAL_ERROR
from service.engine.inbox import Inbox
from service.engine.secrets import Masking
from service.steps import Attempt, Emit, Outcome, Step

diagnostics = structlog.get_logger("tailrace.engine")


class Saying(Emit):
    """What an attempt of ``step_id`` says: into its run's ``inbox``, with every secret masked."""

    def __init__(self, inbox: Inbox, step_id: str, masking: Masking) -> None:
        self._inbox = inbox
        self._step_id = step_id
        self._masking = masking

    def at_once(self, level: Level, lines: Sequence[str]) -> bool:
        """Record ``lines``; where it returns False, there is no more ``room``."""
        if self._masking.values:
            lines = [self._masking.mask(line) for line in lines]
        return self._inbox.say(self._step_id, level, lines)

    async def room(self) -> None:
        """Return once the run can take more."""
        await self._inbox.room()


async def perform(
    step: Step,
    spec: StepSpec,
    root: Mapping[str, Any],
    masking: Masking,
    *,
    number: int,
    run_id: str,
    elapsed_ms: int,
    inbox: Inbox,
    trace: Mapping[str, str],
) -> Ended:
    """Return how the attempt ended; only a cancellation comes through as an exception.

    ``root`` is what the config's templates look into, secrets included; ``inbox`` is the run's.
    """
    saying = Saying(inbox, spec.id, masking)
    timeout_s = None if spec.timeout_ms is None else spec.timeout_ms / 1000
    limit = asyncio.timeout(timeout_s)
    try:
        config = spec.config.render(root)
        async with limit:
            outcome = await step.run(
                Attempt(config, number, f"{run_id}/{spec.id}", elapsed_ms, saying, trace, spec.timeout_ms)
            )
    except ExpressionFailed as failure:
        return _failed(failure.code, masking.mask(str(failure)))
    except TimeoutError as error:
        if limit.expired():
            return _failed("timeout", f"Not done within {timeout_s:g} s.", status_timeout=True)
        return _fault_of_ours(error, run_id, spec, masking)
    except Exception as error:  # noqa: BLE001  a step type's fault fails its step, never the run's loop
        return _fault_of_ours(error, run_id, spec, masking)
    return await _ended(outcome, masking)


async def _ended(outcome: Outcome, masking: Masking) -> Ended:
    recorded = outcome.document if outcome.recorded is None else outcome.recorded
    try:
        holds = masking.holds(recorded)
        if not holds and masking.values and recorded is not outcome.document:
            # Too large for an event: the loop would stand still while megabytes are searched.
            holds = await asyncio.to_thread(masking.holds, outcome.document)
        if holds:
            return _failed("secret_in_output", "The result holds a declared secret and was not recorded.")
    except UNENCODABLE:
        return _failed("output_unencodable", "The result has no JSON form.")
    return Ended(outcome.status, outcome.document, recorded, masking.mask_error(outcome.error))


def _failed(code: str, message: str, *, status_timeout: bool = False) -> Ended:
    return Ended("timeout" if status_timeout else "failed", {}, {}, Error(code, message))


def _fault_of_ours(error: Exception, run_id: str, spec: StepSpec, masking: Masking) -> Ended:
    told = masking.mask("".join(format_exception(error)).strip())
    diagnostics.error("step type raised", run_id=run_id, step_id=spec.id, type=spec.type, exception=told)
    return _failed(INTERNAL_ERROR, f"The step type {spec.type} failed: {type(error).__name__}.")
