"""JSON Schema as far as our document uses it; a word that is not known here is an error, not ignored."""

import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "null": type(None), "number": (int, float), "integer": (int, float),
}  # fmt: skip
SAYS_NOTHING = {"title", "description", "default", "examples"}


def fits(value: Any, schema: Schema, root: Schema) -> bool:
    """Say whether ``value`` is valid by ``schema``, whose references lead into ``root``."""
    for word in schema.keys() - SAYS_NOTHING:
        check = OF_ANYTHING.get(word)
        if check is not None:
            good = check(schema[word], value, root)
        elif word in OF_OBJECTS:
            good = not isinstance(value, dict) or OF_OBJECTS[word](schema[word], value, root, schema)
        else:
            kind, of_kind = OF_KIND[word]
            good = not is_a(value, kind) or of_kind(schema[word], value, root)
        if not good:
            return False
    return True


def is_a(value: Any, name: str) -> bool:
    if isinstance(value, bool) or name == "boolean":
        return isinstance(value, bool) and name == "boolean"
    return isinstance(value, TYPES[name]) and (name != "integer" or int(value) == value)


def target(reference: str, root: Schema) -> Schema:
    found = root
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def _others(value: dict[str, Any], schema: Schema) -> list[Any]:
    return [each for key, each in value.items() if key not in schema.get("properties", {})]


OF_ANYTHING: dict[str, Callable[[Any, Any, Schema], bool]] = {
    "$ref": lambda said, value, root: fits(value, target(said, root), root),
    "anyOf": lambda said, value, root: any(fits(value, each, root) for each in said),
    "oneOf": lambda said, value, root: sum(fits(value, each, root) for each in said) == 1,
    "allOf": lambda said, value, root: all(fits(value, each, root) for each in said),
    "not": lambda said, value, root: not fits(value, said, root),
    "type": lambda said, value, _: any(
        is_a(value, name) for name in ([said] if isinstance(said, str) else said)
    ),
    "enum": lambda said, value, _: any(value == each and type(value) is type(each) for each in said),
    "const": lambda said, value, _: value == said,
}
OF_KIND: dict[str, tuple[str, Callable[[Any, Any, Schema], bool]]] = {
    "pattern": ("string", lambda said, value, _: re.search(said, value) is not None),
    "minLength": ("string", lambda said, value, _: len(value) >= said),
    "maxLength": ("string", lambda said, value, _: len(value) <= said),
    "minimum": ("number", lambda said, value, _: value >= said),
    "maximum": ("number", lambda said, value, _: value <= said),
    "items": ("array", lambda said, value, root: all(fits(each, said, root) for each in value)),
    "minItems": ("array", lambda said, value, _: len(value) >= said),
    "uniqueItems": ("array", lambda said, value, _: len({repr(each) for each in value}) == len(value)),
}
OF_OBJECTS: dict[str, Callable[[Any, dict[str, Any], Schema, Schema], bool]] = {
    "required": lambda said, value, _, __: set(said) <= value.keys(),
    "minProperties": lambda said, value, _, __: len(value) >= said,
    "propertyNames": lambda said, value, root, _: all(fits(key, said, root) for key in value),
    "properties": lambda said, value, root, _: all(
        fits(value[key], said[key], root) for key in said if key in value
    ),
    "additionalProperties": lambda said, value, root, schema: (
        not _others(value, schema)
        if said is False
        else all(fits(each, said, root) for each in _others(value, schema))
    ),
}
