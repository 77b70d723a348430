"""docs/definitions.md as tests read it: its examples with what they come to, and its tables."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

PAGE = (Path(__file__).parents[2] / "docs/definitions.md").read_text()
_EXAMPLE = re.compile(r"^```json\n(.*?)^```\n\n(Ends as .*?)$", re.DOTALL | re.MULTILINE)
_ENDS = re.compile(r"Ends as `(success|failed)`(?: with the error `(\w+)`|, with (.+))\.")
_VALUE = re.compile(r"`(\w+)` = `([^`]+)`")


class Example(NamedTuple):
    """A definition, and how the page says that its run ends."""

    text: str
    status: str
    error: str | None
    variables: dict[str, Any]

    @property
    def definition(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def name(self) -> str:
        """Return the ids of its steps, by which tests call it."""
        steps = self.definition["steps"]
        return "-".join(steps if isinstance(steps, dict) else [step["id"] for step in steps])


def examples() -> list[Example]:
    """Return every example; each must be followed by how it ends."""
    found = []
    for text, said in _EXAMPLE.findall(PAGE):
        ends = _ENDS.fullmatch(said)
        assert ends is not None, said
        values = {name: json.loads(value) for name, value in _VALUE.findall(ends[3] or "")}
        assert (ends[1] == "failed") == (ends[2] is not None), said
        found.append(Example(text, ends[1], ends[2], values))
    assert len(found) == PAGE.count("```json")
    return found


def rows(heading: str) -> list[list[str]]:
    """Return the cells of every table under ``## heading``, without the heads."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = [n for n, line in enumerate(lines) if line.startswith("|---")]
    assert heads, heading
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for n, line in enumerate(lines)
        if n not in heads and n + 1 not in heads
    ]


def keys(heading: str) -> list[str]:
    """Return what the first cells of a section's tables name."""
    return [cells[0].strip("`") for cells in rows(heading)]
