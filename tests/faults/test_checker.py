"""The checker finds a lost, a doubled, a swapped and an altered event: otherwise it would prove nothing."""

import json

import pytest

from tests.faults.checker import faults_of_frames, faults_of_history


def event(seq, kind, **payload):
    return json.dumps({"runId": "r", "type": kind, "payload": payload, "seq": seq, "timestamp": "t"}).encode()


HISTORY = [
    event(0, "run_start", definition={"steps": [{"id": "a"}]}),
    event(1, "step_start", stepId="a"),
    event(2, "step_log", stepId="a"),
    event(3, "step_complete", stepId="a"),
    event(4, "run_complete", status="success"),
]


def test_a_sound_history_and_its_frames_pass():
    assert faults_of_history("r", HISTORY) == []
    assert faults_of_frames("r", HISTORY[1:4], HISTORY) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: e[:2] + e[3:],
        lambda e: e[:2] + e[1:],
        lambda e: [e[0], e[2], e[1], *e[3:]],
        lambda e: [e[0], event(2, "step_log", stepId="b"), *e[2:]],
    ],
    ids=["lost", "doubled", "swapped", "altered"],
)
def test_one_damaged_event_is_found(damage):
    assert faults_of_frames("r", damage(HISTORY[1:4]), HISTORY)


def test_a_history_without_its_end_with_two_ends_or_with_an_open_step_is_found():
    assert faults_of_history("r", HISTORY[:4])
    assert faults_of_history("r", [*HISTORY, event(5, "run_complete", status="success")])
    assert faults_of_history("r", [HISTORY[0], HISTORY[1], HISTORY[2], event(3, "run_complete")])
    assert faults_of_history("r", [*HISTORY[:2], *HISTORY[3:]])
