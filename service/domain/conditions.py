"""``when``: JMESPath without functions, with the literals that people write.

``count > 3 && status == "ok"`` becomes JMESPath's ``count > `3` && status == `"ok"` ``. True is what JMESPath
says is true: false, null, "" and empty lists and objects are not, everything else is, 0 included.
"""

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, ClassVar

from jmespath.exceptions import JMESPathError, ParseError
from jmespath.parser import Parser
from jmespath.visitor import TreeInterpreter
from msgspec import Struct

from service.domain.failures import BadExpression, ExpressionTooMuch
from service.domain.literals import Rewritten, rewrite

CHARS_MAX = 2_000
VISITS_MAX = 100_000  # of one condition, of parts of it and of elements that it makes: less than 0.2 s
COMPARED_PER_VISIT = 10  # of the values inside of what == and != compare
ROUND_VISITS_MAX = 100_000  # of all conditions that are looked at before others have a turn

# Nodes whose first child alone looks into the document; the others look into what that one finds.
_NARROWING = {
    "subexpression", "index_expression", "projection", "value_projection", "filter_projection", "flatten",
    "pipe",
}  # fmt: skip


_MAKING = {"flatten", "slice", "value_projection"}  # lists without a visit for each element


class Effort:
    """What conditions may still cost before others have a turn, in visits."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ROUND_VISITS_MAX


class Condition(Struct, frozen=True):
    """A compiled ``when``; ``lookups`` are the names, from the root on, that it is known to look up.

    ``anywhere`` says that it may look up others, too.
    """

    text: str
    tree: dict[str, Any]
    lookups: tuple[tuple[str, ...], ...] = ()
    anywhere: bool = False

    def holds(self, root: Mapping[str, Any], effort: Effort | None = None) -> bool:
        """Say whether the condition is true; what is not there is null. Secrets cannot be seen.

        What it costs is taken off ``effort``. Raises ExpressionTooMuch when that is over VISITS_MAX.
        """
        visible = {key: value for key, value in root.items() if key != "secrets"}
        interpreter = _Interpreter()
        try:
            return bool(interpreter._is_true(interpreter.visit(self.tree, visible)))  # noqa: SLF001  JMESPath's own rule
        finally:
            if effort is not None:
                effort.left -= VISITS_MAX - interpreter.left


def compile_condition(raw: object) -> Condition:
    """Return the condition that ``raw`` is: text, bare or in one pair of braces, or true or false.

    Raises BadExpression, also for a function call.
    """
    if isinstance(raw, bool):
        return Condition(str(raw).lower(), {"type": "literal", "value": raw, "children": []})
    if not isinstance(raw, str):
        raise BadExpression("must be a condition: a string, true or false", 1)
    if len(raw) > CHARS_MAX:
        raise BadExpression(f"a condition has at most {CHARS_MAX} characters", CHARS_MAX + 1)
    start, end = _inside(raw)
    rewritten = rewrite(raw, start, end)
    tree = _parse(rewritten)
    return Condition(raw, tree, tuple(_lookups(tree)), _looks_anywhere(tree))


def _inside(text: str) -> tuple[int, int]:
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    if start >= end:
        raise BadExpression("the condition is empty", 1)
    if not text.startswith("{{", start):
        return start, end
    if not text.endswith("}}", start + 2, end):
        raise BadExpression("braces go around the whole condition or nowhere", start + 1)
    if (inner := text.find("}}", start, end - 2)) >= 0 and "{{" in text[inner:end]:
        raise BadExpression("braces go around the whole condition, once", inner + 1)
    return start + 2, end - 2


def _parse(rewritten: Rewritten) -> dict[str, Any]:
    try:
        # Not jmespath.compile: it keeps every text in a cache, and `!a.b` would mean `(!a).b`.
        tree: dict[str, Any] = _Parser()._parse(rewritten.text).parsed  # noqa: SLF001  parse() is the cache
    except ParseError as error:
        found = repr(error.token_value) if error.token_value else "the end"
        column = rewritten.column(error.lex_position)
        raise BadExpression(f"not a JMESPath expression: unexpected {found}", column) from None
    except JMESPathError as error:
        raise BadExpression(f"not a JMESPath expression: {error}", rewritten.column(0)) from None
    return tree


class _Parser(Parser):  # type: ignore[misc]  # jmespath has no types
    # Looser than every look-up and tighter than every comparison, as users of `!` expect; the
    # library's 45 binds it tighter than the dot.
    BINDING_POWER: ClassVar = {**Parser.BINDING_POWER, "not": 8}


class _Interpreter(TreeInterpreter):  # type: ignore[misc]  # jmespath has no types
    def __init__(self) -> None:
        super().__init__()
        self.left = VISITS_MAX

    def visit(self, node: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self._pay(1)
        found = super().visit(node, *args, **kwargs)
        if node["type"] in _MAKING and isinstance(found, list):
            self._pay(len(found))
        return found

    def _pay(self, visits: int) -> None:
        # A filter costs its length for each element, and lists can be doubled by a few letters.
        self.left -= visits
        if self.left < 0:
            raise ExpressionTooMuch(f"The condition takes more than {VISITS_MAX} steps to evaluate.")

    def _pay_for_comparing(self, value: Any) -> None:
        # Each level is paid for before the next is looked at: a filter compares thousands of times.
        level = [value]
        while level := [each for each in level if isinstance(each, list | dict)]:
            self._pay(1 + sum(map(len, level)) // COMPARED_PER_VISIT)
            level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]

    def visit_comparator(self, node: dict[str, Any], value: Any) -> Any:
        if node["value"] in {"eq", "ne"}:
            left, right = (self.visit(each, value) for each in node["children"])
            self._pay_for_comparing(left)
            return self.COMPARATOR_FUNC[node["value"]](left, right)
        try:
            return super().visit_comparator(node, value)
        except TypeError:
            return None  # a number against a text: null, as JMESPath says of whatever has no order


def _lookups(node: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    children = node["children"]
    match node["type"]:
        case "field":
            yield (node["value"],)
        case "literal" | "slice":
            return
        case "subexpression" if children[0]["type"] in {"field", "current"}:
            names = children if children[0]["type"] == "field" else children[1:]
            yield tuple(each["value"] for each in takewhile(lambda each: each["type"] == "field", names))
        case kind:
            for each in children[:1] if kind in _NARROWING else children:
                yield from _lookups(each)


def _looks_anywhere(node: dict[str, Any]) -> bool:
    """Say whether the root itself may be looked into: by ``@``, or a ``*`` with nothing before it."""
    children = node["children"]
    match node["type"]:
        case "field" | "literal" | "slice":
            return False
        case "current" | "identity":
            return True
        case "subexpression" if children[0]["type"] == "current":
            return bool(children[1]["type"] != "field")
        case kind:
            return any(map(_looks_anywhere, children[:1] if kind in _NARROWING else children))
