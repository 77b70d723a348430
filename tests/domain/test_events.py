"""The envelope is the published contract: its keys, their order, its times."""

import json

import msgspec
import pytest

from service.domain.events import (
    PAYLOADS,
    Error,
    StepComplete,
    StepLog,
    VariableChange,
    WorkflowDeleted,
    decode_event,
    encode_run_event,
    encode_workflow_event,
    format_time,
    parse_time,
)


def test_the_first_three_keys_and_the_two_additions_stand_in_their_order():
    data = encode_run_event("r", StepLog("s", "info", "hi", "t"), seq=3, timestamp="t")
    assert data == (
        b'{"runId":"r","type":"step_log","payload":{"stepId":"s","level":"info","message":"hi",'
        b'"timestamp":"t"},"seq":3,"timestamp":"t"}'
    )
    data = encode_workflow_event("w", WorkflowDeleted(2), seq=1, timestamp="t")
    assert list(json.loads(data)) == ["workflowId", "type", "payload", "seq", "timestamp"]


def test_what_is_not_there_is_left_out_and_null_is_kept():
    change = json.loads(
        encode_run_event("r", VariableChange("s", "v", None, None, "create"), seq=1, timestamp="t")
    )
    assert change["payload"] == {
        "stepId": "s",
        "varName": "v",
        "oldValue": None,
        "newValue": None,
        "changeType": "create",
    }
    done = StepComplete("s", "S", "success", 5, 1)
    assert set(json.loads(encode_run_event("r", done, seq=1, timestamp="t"))["payload"]) == {
        "stepId", "stepName", "status", "duration", "attempt",
    }  # fmt: skip


@pytest.mark.parametrize(
    "payload",
    [
        StepLog("s", "warn", "m", "t", attempt=1, outcome="timeout", error=Error("c", "m"), retry_at="t"),
        StepComplete("s", "S", "failed", 5, 1, error=Error("c", "m", step_id="s"), output={"a": [1, None]}),
    ],
    ids=["log", "complete"],
)
def test_an_event_reads_back_as_it_was_written(payload):
    event = decode_event(encode_run_event("r", payload, seq=9, timestamp="t"))
    assert (event.subject, event.payload, event.seq, event.timestamp) == ("r", payload, 9, "t")


def test_keys_that_a_later_release_adds_are_ignored():
    data = b'{"runId":"r","type":"step_start","payload":{"stepId":"s","stepName":"S","attempt":1,"new":1},"seq":1,"timestamp":"t","extra":2}'
    assert decode_event(data).payload.attempt == 1


def test_an_unknown_type_and_bad_json_are_errors():
    with pytest.raises(KeyError):
        decode_event(b'{"runId":"r","type":"nope","payload":{},"seq":1,"timestamp":"t"}')
    with pytest.raises(msgspec.DecodeError):
        decode_event(b"{")


def test_every_type_of_the_vocabulary_has_its_struct():
    assert set(PAYLOADS) == {
        "step_start", "step_log", "variable_change", "step_complete", "run_start", "run_complete",
        "cancel_requested", "signal_received", "workflow_created", "workflow_updated", "workflow_deleted",
    }  # fmt: skip


def test_times_are_rfc_3339_with_milliseconds():
    assert format_time(1763721045123) == "2025-11-21T10:30:45.123Z"
    assert format_time(1763721046007) == "2025-11-21T10:30:46.007Z"
    for ms in (0, 999, 1000, 1763721045123, -5):
        assert parse_time(format_time(ms)) == ms
