"""How deep JSON from outside is nested is known before it is decoded, whatever its strings hold."""

import json
from random import Random
from typing import Any

import pytest

from service.steps import documents
from service.steps.documents import DEPTH_MAX, decode_body

TEXTS = ["", "[", "]", "{[", '"', '\\"[', "\\", "\\\\", 'a"b[', "\\]", '""', "é[", '[\\"]', "\n{"]


def drawn(random: Random, levels: int) -> Any:
    if levels and random.random() < 0.8:
        members = [drawn(random, levels - 1) for _ in range(random.randint(0, 3))]
        return (
            members
            if random.random() < 0.5
            else {random.choice(TEXTS) + str(n): v for n, v in enumerate(members)}
        )
    return random.choice([*TEXTS, 1, None])


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def test_depth_is_what_decoding_would_find(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(7)
    monkeypatch.setattr(documents, "DEPTH_MAX", 3)
    seen = set()
    for _ in range(4_000):
        value = drawn(random, 6)
        text = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1]))
        seen.add(depth(value))
        assert decode_body(text.encode()) == (value if depth(value) <= 3 else text)
    assert seen == set(range(7))


@pytest.mark.parametrize("ends", ["[]", ('{"a":', "}")])
def test_deeper_than_the_limit_is_text(ends: Any) -> None:
    for levels, is_text in ((DEPTH_MAX, False), (DEPTH_MAX + 1, True), (100_000, True)):
        data = ends[0] * levels + ("" if ends == "[]" else "1") + ends[1] * levels
        assert isinstance(decode_body(data.encode()), str) == is_text


def test_brackets_in_strings_are_no_levels() -> None:
    value = ["[" * 10_000, '\\"' * 300 + "{" * 10_000, {"[" * 500: ["]"] * 500}]
    assert decode_body(json.dumps(value).encode()) == value
    hidden = '["' + "]" * 10_000 + '",' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "]"
    assert decode_body(hidden.encode()) == hidden


def test_what_is_too_deep_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes) -> Any:
        raise AssertionError(data[:9])

    monkeypatch.setattr(documents.msgspec.json, "decode", decode)
    text = "[" + ",".join(["[" * DEPTH_MAX + "]" * DEPTH_MAX] * 100) + "]"
    assert decode_body(text.encode()) == text
