"""Rates: so many a minute, by a clock that nobody sets; who comes again and again is not remembered for ever."""

import random

import pytest

from service.ops import limits
from service.ops.limits import Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_minute_s_worth_at_once_then_one_by_one():
    clock = Clock()
    rate = Rate(60, now=clock)
    assert [rate.take("a") for _ in range(60)] == [0.0] * 60
    assert rate.take("a") == pytest.approx(1.0)
    assert rate.take("b") == 0.0
    clock.now += 1.0
    assert rate.take("a") == 0.0
    assert rate.take("a") == pytest.approx(1.0), "what is refused is not counted"


def test_in_no_minute_more_than_twice_what_is_allowed_and_never_over_it_in_the_long_run():
    clock, chance = Clock(), random.Random(1)
    rate = Rate(100, now=clock)
    taken = []
    while clock.now < 1_000 + 3_600:
        clock.now += chance.expovariate(10)
        if rate.take("a") == 0.0:
            taken.append(clock.now)
    assert len(taken) <= 100 * 61
    assert len(taken) >= 100 * 60
    busiest = max(sum(1 for each in taken if start <= each < start + 60) for start in taken[::50])
    assert busiest <= 200


def test_what_is_known_afterwards_is_counted_and_waited_for():
    clock = Clock()
    rate = Rate(6, now=clock)
    assert rate.wait_s("a") == 0.0
    rate.charge("a", 4.5)
    assert rate.wait_s("a") == 0.0
    rate.charge("a", 4.5)
    assert rate.wait_s("a") == pytest.approx(30.0)
    assert rate.wait_s("b") == 0.0
    clock.now += 30.0
    assert rate.wait_s("a") == 0.0


def test_0_allows_everything():
    assert all(Rate(0).take("a") == 0.0 for _ in range(1_000))


def test_memory_is_bounded_whoever_comes(monkeypatch):
    monkeypatch.setattr(limits, "KEYS_MAX", 100)
    clock = Clock()
    rate = Rate(10, now=clock)
    for number in range(5_000):
        rate.take(str(number))
        assert len(rate._full_at) <= 100
    clock.now += 120
    rate.take("x")
    for number in range(101):
        rate.take(f"y{number}")
    assert len(rate._full_at) <= 100
