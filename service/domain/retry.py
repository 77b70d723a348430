"""When the next attempt is due: backoff arithmetic, with jitter that is the same on every replay."""

from zlib import crc32

from service.domain.definition import Retry

JITTER = 0.1  # at most this share is added, so that failures of one moment do not return as one


def retry_delay_ms(retry: Retry, *, run_id: str, step_id: str, attempt: int) -> int:
    """Return how long to wait after ``attempt`` (1…) ended before the next one begins, in ms."""
    try:
        delay = retry.interval_ms * retry.backoff ** (attempt - 1)
    except OverflowError:
        delay = retry.max_interval_ms
    share = crc32(f"{run_id}/{step_id}/{attempt}".encode()) / 0xFFFF_FFFF
    return round(min(delay * (1 + JITTER * share), retry.max_interval_ms))
