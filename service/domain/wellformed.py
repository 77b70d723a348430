"""What any JSON from a caller must be before it is read: of bounded depth, and writable as JSON again."""

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any

from service.domain.events import RUN_INPUT_BYTES_MAX, encode_value
from service.domain.fields import child
from service.errors import Fault

JSON_DEPTH_MAX = 64
INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # what every JSON reader of ours takes as a whole number


def check_json(raw: object, pointer: str, *, bytes_max: int = RUN_INPUT_BYTES_MAX) -> list[Fault]:
    """Return what keeps ``raw`` from being recorded: depth, size, numbers or text that JSON does not have."""
    faults = list(_faults(raw, pointer))
    if not faults and (size := len(encode_value(raw))) > bytes_max:
        faults.append(Fault(pointer, f"is {size} bytes of JSON; at most {bytes_max} are kept"))
    return faults


def _faults(raw: object, pointer: str) -> Iterator[Fault]:
    if (message := _leaf_fault(raw)) is not None:
        yield Fault(pointer, message)
    # A stack of its own: the depth is what is being checked.
    containers: list[tuple[Any, str, int]] = [(raw, pointer, 1)] if isinstance(raw, dict | list) else []
    while containers:
        value, at, depth = containers.pop()
        if depth > JSON_DEPTH_MAX:
            yield Fault(at, f"is nested deeper than {JSON_DEPTH_MAX} levels")
            continue
        members: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in members:
            if isinstance(key, str) and not _is_text(key):
                yield Fault(at, "has a key that is not valid text")
            elif isinstance(each, dict | list):
                containers.append((each, child(at, key), depth + 1))
            elif (message := _leaf_fault(each)) is not None:
                yield Fault(child(at, key), message)


def _leaf_fault(value: object) -> str | None:
    match value:
        case str():
            return None if _is_text(value) else "is not valid text"
        case bool() | None | dict() | list():
            return None
        case int():
            return None if INT_MIN <= value <= INT_MAX else "is a number that does not fit into 64 bits"
        case float():
            return None if isfinite(value) else "is not a number that JSON has"
        case _:
            return "is not a JSON value"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
