"""What a row of the table says, when its target counts as reached, and the table itself."""

import json
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

NOT_INSTALLED = "not installed"
HEADINGS = ("job", "ours", "peer or ceiling", "ratio", "target", "reached")


class Target(Struct, frozen=True):
    """``ratio``: of ours to the reference; ``figure``: ours alone. Reached from ``bound`` on, or up to it."""

    of: Literal["ratio", "figure"]
    at: Literal["least", "most"]
    bound: float


class Row(Struct, frozen=True):
    """One line. ``reference`` None with a ``against``: that peer is not installed."""

    job: str
    unit: str
    ours: float
    against: str | None = None
    reference: float | None = None
    target: Target | None = None
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        return self.ours / self.reference if self.reference else None

    @property
    def reached(self) -> float | None:
        """How many times the target is reached (1.0: just), None if there is nothing to judge."""
        if self.target is None:
            return None
        value = self.ours if self.target.of == "figure" else self.ratio
        if value is None:
            return None
        return (
            value / self.target.bound if self.target.at == "least" else self.target.bound / max(value, 1e-9)
        )


def table(rows: list[Row], *, judged: bool) -> str:
    """Return the rows as aligned text, their notes below."""
    lines = [HEADINGS, *(_cells(row, judged=judged) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    lines.insert(1, tuple("-" * width for width in widths))
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    for row in rows:
        notes = [said for said in (f"{row.job}: {note}" for note in row.notes) if said not in text]
        text += ["", *notes] if notes else []
    return "\n".join(text)


def save(rows: list[Row], path: Path, **about: object) -> None:
    """Write the rows and what they were measured on as JSON."""
    found = [msgspec.to_builtins(row) | {"ratio": row.ratio, "reached": row.reached} for row in rows]
    path.write_text(json.dumps({**about, "rows": found}, indent=2) + "\n")


def _cells(row: Row, *, judged: bool) -> tuple[str, ...]:
    reference = "–"
    if row.against is not None:
        value = NOT_INSTALLED if row.reference is None else number(row.reference, row.unit)
        reference = f"{row.against} {value}"
    ratio = "–" if row.ratio is None else f"{row.ratio:.2f}x"
    return row.job, number(row.ours, row.unit), reference, ratio, _target(row), _reached(row, judged=judged)


def _target(row: Row) -> str:
    if row.target is None:
        return "–"
    sign = "≥" if row.target.at == "least" else "≤"
    bound = f"{row.target.bound:g}x" if row.target.of == "ratio" else number(row.target.bound, row.unit)
    return f"{sign} {bound}"


def _reached(row: Row, *, judged: bool) -> str:
    if row.target is None:
        return "–"
    if not judged:
        return "not judged"
    if row.reached is None:
        return "nothing to compare with"
    return f"{row.reached:.1f}x, reached" if row.reached >= 1 else f"{row.reached:.2f}x, not reached"


def number(value: float, unit: str) -> str:
    """Return ``value`` with as many digits as mean something, and its unit."""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
