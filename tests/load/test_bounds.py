"""The judge of the load is judged, by made-up figures: a leak is found, noise is none, and nobody may be late."""

import random

import pytest
from msgspec.structs import replace

from tests.bench.client.slow import Slowly
from tests.load.bounds import CALM_CORES, faults, rss_rise
from tests.load.phases import AGAIN, ALL, FULL, IDLE, SLOW, UNLOADED, Found
from tests.load.rise import rise
from tests.load.samples import KIB, MIB, Sample

SEEDS = range(100)
# The least RSS of each minute in half an hour, in MiB: of the first time, and of docs/load.md.
RECORDED = [
    365.8, 367.4, 367.9, 368.4, 400.0, 400.3, 400.3, 400.3, 400.8, 400.8, 400.8, 401.1, 401.1, 401.1, 401.1, 401.1,
    392.9, 392.9, 392.9, 393.2, 393.7, 393.7, 393.7, 393.7, 393.7, 393.7, 393.7, 393.7, 393.7, 393.7,
]  # fmt: skip
RECORDED_AGAIN = [
    357.6, 359.6, 363.4, 367.7, 418.5, 418.9, 419.0, 419.0, 420.9, 421.0, 421.0, 423.8, 423.9, 423.9, 423.9, 423.9,
    423.9, 423.9, 423.9, 423.9, 423.9, 424.0, 424.0, 424.0, 424.0, 424.0, 424.0, 424.4, 424.4, 424.4, 424.4,
]  # fmt: skip


def sample(phase: str, minute: float, rss_mib: float = 360.0, **change: object) -> Sample:
    streams = FULL.streams if phase == ALL else FULL.healthy
    made = Sample(
        phase, 60.0 * minute, int(rss_mib * MIB), 0, 12_000, 5, streams, 0, 0.3, 1.0, 0.0, 2_000.0, 0.4, 2.0, 0
    )  # fmt: skip
    return replace(made, **change)


def found(rss_mib: list[float] = RECORDED, **all_of_it: object) -> Found:
    """Return a load without a fault, with twelve samples a minute; ``all_of_it`` changes those of that phase."""
    empty = sample("empty", 0, 75.0, streams=0)
    count = 12 * len(rss_mib)
    return Found(
        replace(FULL, minutes=len(rss_mib)), empty, empty,
        [
            *(sample(phase, 0, 130.0) for phase in (UNLOADED, IDLE, SLOW) for _ in range(12)),
            *(sample(ALL, at / 12, rss_mib[at // 12], **all_of_it) for at in range(count)),
            *(sample(AGAIN, len(rss_mib), 130.0) for _ in range(12)),
        ],
        5.0, FULL.idle, FULL.healthy, Slowly(FULL.slow, 8_000_000_000, 8_000_000, 0, 0), 965.0,
    )  # fmt: skip


def leaking(rss_mib: list[float], kib_per_min: float) -> list[float]:
    return [value + minute * kib_per_min / KIB for minute, value in enumerate(rss_mib)]


def noisy(seed: int) -> list[float]:
    """Return half an hour as it was recorded: it warms up, steps down once, now and then needs a little more."""
    chance = random.Random(seed)
    down = chance.randrange(5, 30)
    value, values = 366.0, []
    for minute in range(30):
        value += 32.0 if minute == 4 else -8.0 if minute == down else 0.0
        value += chance.uniform(0.1, 0.5) if chance.random() < 2.5 / (minute + 4) else 0.0
        values.append(value + chance.expovariate(20))
    return values


@pytest.mark.parametrize("recorded", [RECORDED, RECORDED_AGAIN])
def test_a_recorded_half_hour_passes_and_would_not_with_a_leak(recorded):
    assert list(faults(found(recorded), timed=True)) == []
    for kib_per_min in (200, 400, 800):
        told = list(faults(found(leaking(recorded, kib_per_min)), timed=True))
        assert [each[:12] for each in told] == ["RSS rises by"], (kib_per_min, told)


def test_noise_is_no_leak_and_hides_none():
    taken = sum(bool(list(faults(found(noisy(seed)), timed=True))) for seed in SEEDS)
    missed = sum(not list(faults(found(leaking(noisy(seed), 200)), timed=True)) for seed in SEEDS)
    assert taken <= len(SEEDS) // 100
    assert missed == 0


@pytest.mark.parametrize(
    ("rss_mib", "leaks"),
    [
        ([400.0] * 12 + [408.0] * 18, False),  # a step that stays
        ([400.0 + 2 * (minute % 4) for minute in range(30)], False),  # garbage that is collected
        ([380.0 + 4 * min(minute, 5) for minute in range(30)], False),  # warming up
        ([400.0 + 3 * (minute // 7) for minute in range(30)], True),  # a leak that comes in steps
        ([400.0 + 8 * (minute // 10) for minute in range(30)], True),
    ],
)
def test_what_rises_again_and_again_is_a_leak(rss_mib, leaks):
    assert bool(list(faults(found(rss_mib), timed=True))) == leaks, rss_rise(found(rss_mib))


def test_only_the_floor_of_a_minute_counts():
    chance = random.Random(1)
    risen = rise((5.0 * at, 400.0 + (at % 12 > 0) * chance.uniform(0, 500)) for at in range(360))
    assert (risen.per_min, risen.least, risen.most) == (0.0, 0.0, 0.0)


def test_a_few_minutes_say_nothing():
    assert rss_rise(found(leaking([400.0] * 19, 5_000))) is None
    assert rss_rise(found(leaking([400.0] * 20, 5_000))).per_min == pytest.approx(5_000, abs=1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p99_ms": 4.0}, []),  # twice what it is unloaded
        ({"p99_ms": 4.1}, ["healthy p99 is 4.1 ms, 2.05x of unloaded"]),
        ({"p99_ms": 4.1, "other_cores": CALM_CORES + 0.1}, ["healthy p99 is 4.1 ms, 2.05x of unloaded"]),
    ],
)
def test_healthy_watchers_may_be_twice_as_late_and_no_more(change, said):
    assert list(faults(found(**change), timed=True)) == said
    assert list(faults(found(**change), timed=False)) == []


def test_windows_that_others_disturbed_do_not_count_while_enough_are_left():
    disturbed = found()
    for place, each in enumerate(disturbed.samples):
        if each.phase == ALL and place % 3:
            disturbed.samples[place] = replace(each, p99_ms=50.0, other_cores=1.5)
    assert list(faults(disturbed, timed=True)) == []


@pytest.mark.parametrize(
    ("bytes_per_s", "said"), [(820.0, []), (819.0, ["slow readers got 819 bytes a second"])]
)
def test_slow_readers_get_what_they_take(bytes_per_s, said):
    assert list(faults(replace(found(), slow_bytes_per_s=bytes_per_s), timed=True)) == said
    assert list(faults(replace(found(), slow_bytes_per_s=bytes_per_s), timed=False)) == []
