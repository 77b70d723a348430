"""The disk fails every operation of a few appends in turn: what was answered stays true, and work goes on."""

import pytest

from tests.faults.sweep import sweep

CASES = 300


def test_an_answer_stays_true_whichever_operation_fails(in_memory):
    found = sweep(in_memory, seed=1, count=CASES)
    if found is None:
        pytest.skip("this Python's SQLite is not a library of its own")
    faults, figures = found
    assert faults == []
    assert figures["felt"] > CASES * 2 // 3, "beside other programs appends come in fewer, larger groups"
    assert min(figures["unknown"], figures["not_stored"], figures["stored_before"]) > 0
