"""The one filter of a run's events, on every way to read them, against the events decoded in full."""

import json

import pytest

from service.api.filters import LEVELS, RUN_TYPES, EventFilter
from service.domain.events import StepComplete, StepLog, StepStart, VariableChange, encode_run_event
from service.log import Recorded
from tests.wire.server import START, TIMESTAMP, seal

PAYLOADS = [
    START,
    *(StepStart(step, step, 1) for step in ("a", "b")),
    *(StepLog(step, level, "stepId level", TIMESTAMP) for step in ("a", "b") for level in LEVELS),
    VariableChange("a", "v", {"stepId": "b", "level": "error"}, [1], "update"),
    StepComplete("a", "a", "success", 1, 1, output={"level": "debug", "payload": {"stepId": "b"}}),
    StepComplete("b", "b", "failed", 1, 1),
    seal(15),
]
EVENTS = [
    Recorded("run/r", seq, seq, payload.type, encode_run_event("r", payload, seq=seq, timestamp=TIMESTAMP), 0)
    for seq, payload in enumerate(PAYLOADS)
]


@pytest.mark.parametrize("types", [None, RUN_TYPES, {"step_log"}, {"run_complete", "step_start"}])
@pytest.mark.parametrize("step_id", [None, "a", "nobody", ""])
@pytest.mark.parametrize("level", [None, *LEVELS])
def test_what_passes(types, step_id, level):
    where = EventFilter(step_id=step_id, level=level)
    if types is not None:
        where = EventFilter(frozenset(types), step_id, level)

    def wanted(event: Recorded) -> bool:
        payload = json.loads(event.data)["payload"]
        loud = (
            event.type != "step_log" or level is None or LEVELS.index(payload["level"]) >= LEVELS.index(level)
        )
        return event.type in where.types and loud and (step_id is None or payload.get("stepId") == step_id)

    expected = [event for event in EVENTS if wanted(event)]
    assert where.passing(EVENTS) == expected
    assert [event for event in EVENTS if where.passes(event)] == expected


def test_a_filter_that_hides_nothing_hands_on_the_very_page():
    assert EventFilter(RUN_TYPES).passing(EVENTS) is EVENTS
    assert not EventFilter(RUN_TYPES, level="debug").everything


@pytest.mark.parametrize("types", [frozenset({"step_start"}), frozenset(RUN_TYPES)])
def test_a_payload_is_looked_into_only_if_that_decides(types):
    broken = [Recorded("run/r", 0, 0, "step_start", b"{", 0), Recorded("run/r", 1, 1, "run_start", b"{", 0)]
    assert EventFilter(types, level="error").passing(broken)[:1] == broken[:1]
    assert EventFilter(types, step_id="a").passing(broken[1:]) == []
