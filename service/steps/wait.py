"""The step that only lets time pass; with ``duration: 0`` it does nothing, as cheaply as that can be."""

import asyncio
from collections.abc import Mapping
from typing import Any

from service.errors import Fault
from service.steps import Attempt, Outcome
from service.steps.config import Config
from service.steps.documents import bad_config


class Wait:
    """``{duration}`` (ms or "30s"), counted from the first attempt: an interrupted wait goes on."""

    type = "wait"
    holds_slot = False

    def check(self, config: Mapping[str, Any], pointer: str) -> list[Fault]:
        """Return every fault of an unrendered config."""
        reading = Config(config, pointer, templates=True)
        _read(reading)
        return reading.faults

    def repeatable(self, config: Mapping[str, Any]) -> bool:  # noqa: ARG002  the protocol's
        """Time may always be waited for again."""
        return True

    async def run(self, attempt: Attempt) -> Outcome:
        """Return once ``duration`` has passed since the step's first attempt began."""
        duration_ms = attempt.config.get("duration")
        if type(duration_ms) is not int or duration_ms:
            reading = Config(attempt.config)
            duration_ms = _read(reading)
            if reading.faults:
                return bad_config(reading.faults)
            await asyncio.sleep(max(0, duration_ms - attempt.elapsed_ms) / 1000)
        return Outcome("success", {"waitedMs": duration_ms})


def _read(reading: Config) -> int:
    reading.one_of("duration")
    reading.refuse_unknown(("duration",))
    return reading.duration("duration", least_ms=0) or 0
