"""What is large when it is checked: places are words only in faults, faults have an end, hints are for few."""

import tracemalloc

import pytest

from service.domain.fields import HINT_LETTERS_MAX, POINTER_CHARS_MAX, POINTER_KEY_CHARS_MAX, child, near
from service.domain.wellformed import JSON_DEPTH_MAX, check_json
from tests.domain.definitions import parse, step

MIB = 1024 * 1024


def peak_bytes(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("inner", [[], [0], {"a": {}}])
def test_many_values_behind_one_long_key_take_no_memory(inner):
    raw = {"k" * 90_000: [inner for _ in range(20_000)]}
    assert peak_bytes(lambda: check_json(raw, "", bytes_max=10**9)) < 2 * MIB


def test_templates_behind_a_long_key_take_little():
    config = {"with": {"k" * 90_000: ["{{a}}" for _ in range(5_000)]}}
    definition = {"variables": {"a": 1}, "steps": {"s": step(config=config)}}
    assert peak_bytes(lambda: parse(definition)) < 40 * MIB


def test_a_fault_deep_inside_is_told_with_its_place():
    assert [each.pointer for each in check_json({"a": [{"b": "\ud800"}, [float("nan")]]}, "/x")] == [
        "/x/a/0/b",
        "/x/a/1/0",
    ]
    deep: list = []
    for _ in range(JSON_DEPTH_MAX):
        deep = [deep]
    (fault,) = check_json(deep, "")
    assert (fault.pointer, fault.message) == ("/0" * JSON_DEPTH_MAX, "is nested deeper than 64 levels")


def test_a_long_place_is_cut():
    assert child("/a", "x" * 300) == f"/a/{'x' * POINTER_KEY_CHARS_MAX}…"
    pointer = ""
    for _ in range(100):
        pointer = child(pointer, "x" * 300)
    assert POINTER_CHARS_MAX < len(pointer) < POINTER_CHARS_MAX + 2 * POINTER_KEY_CHARS_MAX
    assert pointer.endswith("…")


def test_a_hint_is_not_looked_for_among_too_many_letters():
    assert near("nmae", ["name", "type"]) == "; did you mean 'name'?"
    many = ["ab" * 32 + str(n) for n in range(500)]
    assert len("nmae" * 10) * sum(map(len, many)) > HINT_LETTERS_MAX
    assert near("nmae" * 10, [*many, "name" * 10]) == ""
