import asyncio
import time

import pytest

from service.steps.wait import Wait
from tests.steps.attempts import attempt


async def test_a_wait_lasts_its_duration() -> None:
    started = time.monotonic()
    outcome = await Wait().run(attempt({"duration": "80ms"}))
    assert time.monotonic() - started >= 0.08
    assert (outcome.status, outcome.document) == ("success", {"waitedMs": 80})


async def test_an_interrupted_wait_goes_on_where_it_was() -> None:
    async with asyncio.timeout(2):
        outcome = await Wait().run(attempt({"duration": "1h"}, elapsed_ms=3_599_950))
    assert outcome.status == "success"


async def test_waiting_for_nothing_never_yields() -> None:
    running = Wait().run(attempt({"duration": 0}))
    with pytest.raises(StopIteration) as done:
        running.send(None)
    assert done.value.value.document == {"waitedMs": 0}


@pytest.mark.parametrize("duration", [None, False, -1, "soon", [], {}, 1.5, "30y", 367 * 86_400_000, "{{x}}"])
async def test_what_is_no_duration_fails(duration: object) -> None:
    outcome = await Wait().run(attempt({"duration": duration}))
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.code == "bad_config"
    assert "duration" in outcome.error.message
