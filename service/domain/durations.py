"""Durations as people write them: a number is milliseconds, a text says its unit."""

import re

DURATION_MS_MAX = 366 * 24 * 3_600_000
UNITS_MS = {"": 1, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 24 * 3_600_000}

_TEXT = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d|)\s*")


def parse_duration(value: object) -> int:
    """Return milliseconds, from 0 to DURATION_MS_MAX, of a number of ms or a text like "30s".

    Raises ValueError with a sentence about what is wrong.
    """
    match value:
        case bool():
            raise ValueError('must be a number of milliseconds or a text like "30s"')
        case int():
            duration_ms = value
        case float():
            if not value.is_integer():  # nor is infinity, nor NaN
                raise ValueError("must be a whole number of milliseconds")
            duration_ms = int(value)
        case str():
            duration_ms = _parse_text(value)
        case _:
            raise ValueError('must be a number of milliseconds or a text like "30s"')
    if duration_ms < 0:
        raise ValueError("must not be negative")
    if duration_ms > DURATION_MS_MAX:
        raise ValueError("must be at most 366 days")
    return duration_ms


def _parse_text(text: str) -> int:
    parts = _TEXT.fullmatch(text)
    if parts is None:
        raise ValueError('must be a number with a unit: "500ms", "30s", "5m", "1h" or "1d"')
    number, unit = parts[1], UNITS_MS[parts[2]]
    return round(float(number) * unit) if "." in number else int(number) * unit
