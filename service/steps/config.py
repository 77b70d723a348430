"""A step's config, read member by member; the same reading checks a definition and serves an attempt.

While its templates are not rendered, a string that holds one passes as any value and reads as absent.
"""

from collections.abc import Collection, Mapping
from typing import Any

from service.domain.expressions import as_text
from service.domain.fields import Fields


class Config(Fields):
    """The members of one config and the faults found in them."""

    def __init__(self, config: Mapping[str, Any], pointer: str = "", *, templates: bool = False) -> None:
        closed = {key: value for key, value in config.items() if not (templates and is_template(value))}
        super().__init__(closed, pointer, [])
        self.config = config
        self.templates = templates

    def has(self, key: str) -> bool:
        """Say whether a member is there, be it as a template."""
        return self.config.get(key) is not None

    def is_open(self, value: object) -> bool:
        """Say whether ``value`` is known only when its template is rendered."""
        return self.templates and is_template(value)

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Note every key that is not ``known``, with the nearest one that is."""
        Fields(self.config, self.pointer, self.faults).refuse_unknown(known)

    def one_of(self, *keys: str) -> str:
        """Return the key that is used of several that mean the same; it must be given once."""
        used = [key for key in keys if self.has(key)]
        if not used:
            self.fault(keys[0], "is required")
        for key in used[1:]:
            self.fault(key, f"means the same as {used[0]}; give one of them")
        return used[0] if used else keys[0]

    def texts(self, key: str) -> dict[str, str]:
        """Return an object whose values are to be text; null leaves its member out."""
        return {
            name: "" if self.is_open(value) else as_text(value)
            for name, value in self.object(key).items()
            if value is not None
        }

    def codes(self, key: str, *, least: int, most: int, classes: bool = False) -> tuple[str, ...]:
        """Return what results are expected, a number or a list of them, as text.

        With ``classes``, ``"2xx"`` stands for every number that begins so.
        """
        written = self.raw.get(key)
        if written is None:
            return ()
        expected: list[str] = []
        for item in written if isinstance(written, list) else [written]:
            text = str(item) if isinstance(item, int | str) and not isinstance(item, bool) else ""
            is_class = classes and len(text) == 3 and text[:1] in set("12345") and text[1:].lower() == "xx"
            is_code = text.isascii() and text.isdigit() and len(text) <= 3 and least <= int(text) <= most
            if is_class or is_code:
                expected.append(text.lower() if is_class else str(int(text)))
            elif not self.is_open(item):
                example = ', a text like "2xx"' if classes else ""
                self.fault(key, f"must be a number from {least} to {most}{example}, or a list of them")
        return tuple(expected)


def is_template(value: object) -> bool:
    """Say whether ``value`` is a string with a template in it."""
    return isinstance(value, str) and "{{" in value
