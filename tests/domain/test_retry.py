"""Backoff: grows, is bounded, and is the same on every replay."""

from service.domain.definition import Retry
from service.domain.retry import JITTER, retry_delay_ms


def delay(retry, attempt, step_id="s"):
    return retry_delay_ms(retry, run_id="r", step_id=step_id, attempt=attempt)


def test_it_grows_by_the_multiplier_with_a_little_jitter():
    retry = Retry(max_attempts=9, interval_ms=100, backoff=2.0, max_interval_ms=10_000)
    for attempt in range(1, 6):
        base = 100 * 2 ** (attempt - 1)
        assert base <= delay(retry, attempt) <= base * (1 + JITTER)


def test_it_never_passes_the_largest_interval_however_many_attempts():
    retry = Retry(max_attempts=10_000, interval_ms=100, backoff=10.0, max_interval_ms=5_000)
    assert delay(retry, 50) == delay(retry, 9_999) == 5_000


def test_it_is_repeatable_and_differs_between_steps():
    retry = Retry(max_attempts=9, interval_ms=100_000, backoff=1.0, max_interval_ms=1_000_000)
    assert delay(retry, 1) == delay(retry, 1)
    assert len({delay(retry, 1, f"s{n}") for n in range(20)}) > 10
