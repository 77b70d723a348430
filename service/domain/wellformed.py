"""What any JSON from a caller must be before it is read: of bounded depth, and writable as JSON again."""

from collections.abc import Iterator
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
    # Iterators of its own: the depth is what is being checked. A place is put into words only for a fault, as
    # a body of a megabyte has hundreds of thousands of values, which may all lie behind one long key.
    path: list[str | int] = []
    open_: list[Iterator[tuple[Any, Any]]] = [_members(raw)] if isinstance(raw, dict | list) else []
    while open_:
        for key, each in open_[-1]:
            if isinstance(key, str) and not _is_text(key):
                yield Fault(_place(pointer, path), "has a key that is not valid text")
            elif isinstance(each, dict | list):
                if len(open_) == JSON_DEPTH_MAX:
                    yield Fault(
                        _place(pointer, [*path, key]), f"is nested deeper than {JSON_DEPTH_MAX} levels"
                    )
                elif each:
                    path.append(key)
                    open_.append(_members(each))
                    break
            elif (message := _leaf_fault(each)) is not None:
                yield Fault(_place(pointer, [*path, key]), message)
        else:
            open_.pop()
            del path[-1:]


def _members(value: dict[Any, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    return iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))


def _place(pointer: str, path: list[str | int]) -> str:
    for key in path:
        pointer = child(pointer, key)
    return pointer


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
