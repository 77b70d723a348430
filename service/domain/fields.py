"""The members of one JSON object that a caller sent: read with their form checked, every fault noted."""

from collections.abc import Collection, Mapping, Sized
from difflib import get_close_matches
from typing import Any, TypeGuard

from service.domain.durations import parse_duration
from service.errors import Fault

QUOTED_CHARS_MAX = 64  # of what a caller sent, in a fault's message
POINTER_CHARS_MAX = 1_000
POINTER_KEY_CHARS_MAX = 256
HINT_LETTERS_MAX = 100_000  # of the word times those of all known words: about 10 ms
HINTED_FAULTS_MAX = 10


class Fields:
    """Reads members of ``raw``, the object at ``pointer``; what is wrong is added to ``faults``.

    A member that is null counts as absent, and a reader answers None (or its default) for an absent
    or faulty one: whoever sees ``faults`` empty has only good values.
    """

    def __init__(self, raw: Mapping[str, Any], pointer: str, faults: list[Fault]) -> None:
        self.raw = raw
        self.pointer = pointer
        self.faults = faults

    def at(self, key: str) -> str:
        """Return the pointer of a member that is present."""
        return child(self.pointer, key)

    def fault(self, key: str | None, message: str) -> None:
        """Note a fault of a member, or with None of the object."""
        self.faults.append(Fault(self.pointer if key is None else self.at(key), message))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Note every key that is not ``known``, with the nearest one that is."""
        for key in self.raw:
            if key not in known:
                self.fault(key, f"unknown key {quoted(key)}{near(key, known, self.faults)}")

    def text(self, key: str, *, chars_max: int) -> str | None:
        """Return a string of at most ``chars_max`` characters."""
        value = self.raw.get(key)
        if value is None or (isinstance(value, str) and len(value) <= chars_max):
            return value
        self.fault(key, f"must be a string of at most {chars_max} characters")
        return None

    def choice(self, key: str, options: Collection[str]) -> str | None:
        """Return one of ``options``."""
        value = self.raw.get(key)
        if value is None or (isinstance(value, str) and value in options):
            return value
        self.fault(key, f"must be {' or '.join(map(repr, options))}")
        return None

    def object(self, key: str) -> dict[str, Any]:
        """Return a JSON object, empty when absent."""
        value = self.raw.get(key)
        if isinstance(value, dict):
            return value
        if value is not None:
            self.fault(key, f"must be an object, not {kind_of(value)}")
        return {}

    def whole(self, key: str, *, least: int, most: int) -> int | None:
        """Return a whole number from ``least`` to ``most``."""
        value = self.raw.get(key)
        if value is None:
            return None
        if is_number(value) and least <= value <= most and int(value) == value:
            return int(value)
        self.fault(key, f"must be a whole number from {least} to {most}")
        return None

    def duration(self, key: str, *, least_ms: int) -> int | None:
        """Return a duration in ms: a number of ms or a text like "30s"."""
        value = self.raw.get(key)
        if value is None:
            return None
        try:
            duration_ms = parse_duration(value)
        except ValueError as error:
            self.fault(key, str(error))
            return None
        if duration_ms < least_ms:
            self.fault(key, f"must be at least {least_ms} ms")
        return duration_ms


def child(pointer: str, key: str | int) -> str:
    """Return the RFC 6901 pointer of a member or an item of what is at ``pointer``.

    A long key, and what is deeper than POINTER_CHARS_MAX, is cut and ends with an ellipsis: thousands of
    values may lie behind one key.
    """
    if len(pointer) > POINTER_CHARS_MAX:
        return pointer if pointer.endswith("…") else f"{pointer}/…"
    name = str(key)
    if len(name) > POINTER_KEY_CHARS_MAX:
        name = f"{name[:POINTER_KEY_CHARS_MAX]}…"
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def near(word: str, known: Collection[str], faults: Sized = ()) -> str:
    """Return a hint at the known word that was probably meant, or nothing; only the first faults get one."""
    # difflib compares letter by letter: a large and hostile definition would keep it busy for a minute.
    letters = len(word) * sum(map(len, known))
    if len(word) > QUOTED_CHARS_MAX or letters > HINT_LETTERS_MAX or len(faults) >= HINTED_FAULTS_MAX:
        return ""
    folded = {each.lower(): each for each in known}
    match = get_close_matches(word.lower().replace("_", ""), folded, n=1)
    return f"; did you mean {quoted(folded[match[0]])}?" if match else ""


def quoted(text: str) -> str:
    """Return what a caller wrote as it may stand in a message: in quotes, and not endless."""
    return repr(text if len(text) <= QUOTED_CHARS_MAX else text[:QUOTED_CHARS_MAX] + "…")


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether a JSON value is a number; Python takes true and false for numbers too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
