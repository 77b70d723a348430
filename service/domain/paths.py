"""Look-ups: dotted paths into a JSON document, as templates and output mappings write them.

Their grammar and meaning are a subset of JMESPath's (names with dashes need no quotes). They are walked
here because JMESPath answers null both for null and for nothing, and a missing value must be noticed.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.domain.failures import BadExpression

MISSING: Final = object()  # what a look-up answers when there is nothing, not even null

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_INDEX = re.compile(r"\[\s*(-?[0-9]{1,9})\s*\]")


class Path(Struct, frozen=True):
    """A compiled look-up; ``text`` is how it was written."""

    text: str
    segments: tuple[str | int, ...]

    def find(self, document: object) -> Any:
        """Return the value in ``document``, MISSING when there is none (null is a value)."""
        value: Any = document
        for segment in self.segments:
            if isinstance(segment, str):
                if not isinstance(value, Mapping) or segment not in value:
                    return MISSING
            elif not isinstance(value, list) or not -len(value) <= segment < len(value):
                return MISSING
            value = value[segment]
        return value


def parse_path(text: str) -> Path:
    """Return the look-up that the whole of ``text`` is. Raises BadExpression."""
    start = len(text) - len(text.lstrip())
    if text.startswith("{{", start):
        raise BadExpression("a path stands here without braces", start + 1)
    path, end = scan_path(text, start)
    if end < len(text.rstrip()):
        raise BadExpression(f"unexpected {text[end]!r} after {path.text!r}", end + 1)
    return path


def scan_path(text: str, start: int) -> tuple[Path, int]:
    """Return the look-up that begins at ``start`` and the place after it. Raises BadExpression."""
    name, end = _scan_name(text, start)
    segments: list[str | int] = [name]
    while end < len(text):
        if text[end] == ".":
            name, end = _scan_name(text, end + 1)
            segments.append(name)
        elif text[end] == "[":
            index = _INDEX.match(text, end)
            if index is None:
                raise BadExpression("expected a number in brackets, like [0]", end + 1)
            segments.append(int(index[1]))
            end = index.end()
        else:
            break
    return Path(text[start:end], tuple(segments)), end


def _scan_name(text: str, start: int) -> tuple[str, int]:
    if name := _NAME.match(text, start):
        return name[0], name.end()
    if quoted := _QUOTED.match(text, start):
        return unquote(quoted[0], start + 1), quoted.end()
    if text.startswith('"', start):
        raise BadExpression("the quote is never closed", start + 1)
    found = repr(text[start]) if start < len(text) else "the end"
    raise BadExpression(f"expected a name, found {found}", start + 1)


def unquote(quoted: str, column: int) -> str:
    """Return the text of a JSON string with its quotes. Raises BadExpression at ``column``."""
    try:
        return msgspec.json.decode(quoted, type=str)
    except ValueError:
        raise BadExpression("the quoted text is not a valid JSON string", column) from None
