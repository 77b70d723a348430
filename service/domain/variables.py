"""Names and values of variables: those of a definition, of a run's request, and those that outputs set."""

from typing import Any

from service.domain.events import VALUE_BYTES_MAX, encode_value
from service.domain.fields import child, kind_of
from service.errors import Fault

RESERVED = ("steps", "env", "secrets")  # what else an expression can look into
NAME_CHARS_MAX = 128


def check_variables(variables: object, pointer: str) -> list[Fault]:
    """Return every fault of ``variables``, well-formed JSON (wellformed.py) found at ``pointer``."""
    if not isinstance(variables, dict):
        return [Fault(pointer, f"must be an object, not {kind_of(variables)}")]
    faults: list[Fault] = []
    for name, value in variables.items():
        messages = (name_fault(name), _value_fault(value))
        faults += [Fault(child(pointer, name), each) for each in messages if each is not None]
    return faults


def name_fault(name: str) -> str | None:
    """Return what is wrong with a variable's name, None when nothing is."""
    if name in RESERVED:
        return f"a variable cannot be called {name!r}: expressions use that name already"
    if not 0 < len(name) <= NAME_CHARS_MAX:
        return f"a variable's name has 1 to {NAME_CHARS_MAX} characters"
    return None


def _value_fault(value: Any) -> str | None:
    size = len(encode_value(value))
    if size <= VALUE_BYTES_MAX:
        return None
    return f"is {size} bytes of JSON; a variable has at most {VALUE_BYTES_MAX}"
