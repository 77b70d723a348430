r"""Expressions of a definition: templates here, look-ups in paths.py, ``when`` in conditions.py.

A template is ``{{ path }}`` within a string, and ``\{{`` is a literal ``{{``: of the backslashes directly
before ``{{`` two make one; anywhere else a backslash is only itself.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from service.domain.conditions import Condition, compile_condition
from service.domain.events import encode_value
from service.domain.failures import BadExpression, ExpressionFailed, ExpressionTooMuch, MissingValue
from service.domain.fields import child
from service.domain.paths import MISSING, Path, parse_path, scan_path
from service.errors import Fault

__all__ = [
    "MISSING", "BadExpression", "Condition", "ExpressionFailed", "ExpressionTooMuch", "Lookup",
    "MissingValue", "Path", "Template", "as_text", "compile_condition", "compile_template", "parse_path",
]  # fmt: skip

INSERTED_CHARS_MAX = 1024 * 1024  # all values together that one rendering inserts


class Lookup(Struct, frozen=True):
    """Where a template looks something up: the pointer of its string and the column in it, from 1."""

    pointer: str
    column: int
    path: Path


class Template(Struct, frozen=True):
    """A JSON value whose strings may hold look-ups; ``secrets`` are the names it asks for."""

    node: Any
    secrets: frozenset[str] = frozenset()

    def render(self, root: Mapping[str, Any]) -> Any:
        """Return the value with every look-up replaced by what ``root`` has there.

        A string that is one template becomes the value itself, with its type; within text a string is
        inserted as it is, anything else as compact JSON. What was inserted is never looked at again. Parts
        are shared with the template and ``root``: the caller must not change them.
        Raises MissingValue, ExpressionTooMuch.
        """
        return _Rendering(root).of(self.node)


class _Text(Struct, frozen=True):
    pieces: tuple[str | Path, ...]


class _Items(Struct, frozen=True):
    nodes: tuple[Any, ...]


class _Members(Struct, frozen=True):
    nodes: dict[str, Any]


_LIVE = (Path, _Text, _Items, _Members)  # a node of any other type is a value that renders as itself


class _Rendering:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.chars_left = INSERTED_CHARS_MAX

    def of(self, node: Any) -> Any:
        match node:
            case Path():
                value = self._look_up(node)
                self._count(as_text(value))
                return value
            case _Text(pieces):
                return "".join(piece if isinstance(piece, str) else self._insert(piece) for piece in pieces)
            case _Items(nodes):
                return [self.of(each) for each in nodes]
            case _Members(nodes):
                return {key: self.of(each) for key, each in nodes.items()}
            case _:
                return node

    def _insert(self, path: Path) -> str:
        return self._count(as_text(self._look_up(path)))

    def _look_up(self, path: Path) -> Any:
        value = path.find(self.root)
        if value is MISSING:
            raise MissingValue(path.text)
        return value

    def _count(self, text: str) -> str:
        # A value of 64 KiB fits thousands of times into a definition's text: what is small when it is
        # read must not fill the memory when it is rendered.
        self.chars_left -= len(text)
        if self.chars_left < 0:
            raise ExpressionTooMuch(f"The config would insert more than {INSERTED_CHARS_MAX} characters.")
        return text


def as_text(value: object) -> str:
    """Return a value as it stands within text: a string as it is, anything else as compact JSON."""
    return value if isinstance(value, str) else encode_value(value).decode()


def compile_template(value: object, pointer: str, faults: list[Fault]) -> tuple[Template, list[Lookup]]:
    """Return the template that ``value`` is, with its look-ups; every bad string is added to ``faults``.

    The keys of objects are not expanded; one that holds ``{{`` is a fault. ``value`` must be JSON of
    bounded depth (wellformed.py).
    """
    compiling = _Compiling(faults)
    node = compiling.of(value, pointer)
    roots = [lookup.path.segments for lookup in compiling.lookups]
    secrets = frozenset(str(path[1]) for path in roots if path[0] == "secrets" and len(path) > 1)
    return Template(node, secrets), compiling.lookups


class _Compiling:
    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        self.lookups: list[Lookup] = []

    def of(self, value: object, pointer: str) -> Any:
        match value:
            case str():
                return self._text(value, pointer) if "{{" in value else value
            case list():
                nodes = [self.of(each, f"{pointer}/{n}") for n, each in enumerate(value)]
                return _Items(tuple(nodes)) if _any_live(nodes) else nodes
            case dict():
                for key in value:
                    if "{{" in key:
                        self.faults.append(Fault(child(pointer, key), "templates are not expanded in a key"))
                members = {key: self.of(each, child(pointer, key)) for key, each in value.items()}
                return _Members(members) if _any_live(members.values()) else members
            case _:
                return value

    def _text(self, text: str, pointer: str) -> Any:
        try:
            pieces, lookups = _split(text, pointer)
        except BadExpression as error:
            self.faults.append(Fault(pointer, str(error)))
            return text
        self.lookups += lookups
        match pieces:
            case [Path() as path]:
                return path
            case _:
                return _Text(tuple(pieces)) if lookups else "".join(map(str, pieces))


def _any_live(nodes: Any) -> bool:
    return any(isinstance(node, _LIVE) for node in nodes)


def _split(text: str, pointer: str) -> tuple[list[str | Path], list[Lookup]]:
    """Return the literal pieces and look-ups of ``text`` in their order. Raises BadExpression."""
    pieces: list[str | Path] = []
    lookups: list[Lookup] = []
    end = 0
    while (opening := text.find("{{", end)) >= 0:
        before = text[end:opening]
        literal = before.rstrip("\\")
        slashes = len(before) - len(literal)
        literal += "\\" * (slashes // 2)
        if slashes % 2:
            pieces.append(literal + "{{")
            end = opening + 2
            continue
        if literal:
            pieces.append(literal)
        path, end = _scan_template(text, opening)
        pieces.append(path)
        lookups.append(Lookup(pointer, opening + 1, path))
    if end < len(text):
        pieces.append(text[end:])
    return pieces, lookups


def _scan_template(text: str, opening: int) -> tuple[Path, int]:
    if text.find("}}", opening) < 0:
        raise BadExpression("the braces are never closed", opening + 1)
    path, end = scan_path(text, _after_space(text, opening + 2))
    end = _after_space(text, end)
    if not text.startswith("}}", end):
        found = repr(text[end]) if end < len(text) else "the end"
        raise BadExpression(f"expected }}}} after {path.text!r}, found {found}", end + 1)
    return path, end + 2


def _after_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
