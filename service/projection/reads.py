"""What the API reads of runs: rows as it answers them, newest first, each query bounded by its limit."""

import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Raw, Struct

LIVE_STATUSES = ("queued", "running")
STATUSES = (*LIVE_STATUSES, "success", "failed", "cancelled")
OUTPUTS_BYTES_MAX = 4 * 1024 * 1024  # of one answer: a run of a thousand steps may have sixteen times that
_OUTPUT = (
    """case when sum(length(cast(output as blob))) over (order by place, step_id) <= ? then output end"""
)
_SUMMARY_COLUMNS = """run_id, workflow_id, workflow_version, status, start_time, end_time, duration,
    last_seq, error, hash, owner"""


class RunSummary(Struct, rename="camel"):
    """A run in a list. ``duration`` in ms; of a live run it and ``end_time`` are None.

    ``started_by``: whose it is.
    """

    run_id: str
    workflow_id: str
    workflow_version: int
    status: str
    start_time: str
    end_time: str | None
    duration: int | None
    last_seq: int | None
    error: Raw | None
    hash: str | None
    started_by: str | None


class RunContext(Struct, frozen=True, omit_defaults=True):
    """A run's values as they are now: its variables, and the recorded output of each step that has one.

    ``omitted``: steps whose output is left out, as those before it in the definition have 4 MiB together. The
    events of a step have it: ``…/events?types=step_complete&stepId=``.
    """

    variables: dict[str, Raw]
    outputs: dict[str, Raw]
    omitted: list[str] = []


class RunDetail(RunSummary, rename="camel", kw_only=True):
    """A run with its values."""

    context: RunContext


class StepRow(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A step of a run: ``pending`` until its first attempt. ``duration`` in ms.

    ``output_omitted``: the output is left out, as those before it have 4 MiB together; its events have it.
    """

    step_id: str
    step_name: str
    status: str
    attempt: int
    start_time: str | None
    end_time: str | None
    duration: int | None
    error: Raw | None
    output: Raw | None
    output_omitted: bool = False


class VariableRow(Struct, frozen=True, rename="camel"):
    """A variable's present value, who set it (None: given at the start) and with which event."""

    var_name: str
    value: Raw
    step_id: str | None
    seq: int


class RunFilter(Struct, frozen=True):
    """Which runs a list holds; ``since`` (included) and ``until`` (not) as events say times."""

    workflow_id: str | None = None
    status: str | None = None
    since: str | None = None
    until: str | None = None
    owner: str | None = None


class RunCursor(Struct, frozen=True, array_like=True):
    """Where a page of runs ended: the next one goes on below it."""

    start_time: str
    position: int

    def text(self) -> str:
        """Return the cursor as clients see it: opaque."""
        return base64.urlsafe_b64encode(f"{self.start_time} {self.position}".encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "RunCursor":
        """Return the cursor that ``text`` stands for. Raises ValueError."""
        try:
            plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
            start_time, position = plain.split(" ")
            cursor = cls(start_time, int(position))
        except ValueError:
            raise ValueError("must be a nextCursor of this list, unchanged") from None
        if not 0 <= cursor.position < 2**63:
            raise ValueError("must be a nextCursor of this list, unchanged")
        return cursor


def select_runs(
    db: sqlite3.Connection, where: RunFilter, *, before: RunCursor | None, limit: int
) -> tuple[list[RunSummary], RunCursor | None]:
    """Return up to ``limit`` runs, newest start first, and the cursor of the next page (None: no more)."""
    terms: list[str] = []
    values: list[object] = []
    for term, value in (
        ("workflow_id = ?", where.workflow_id),
        ("status = ?", where.status),
        ("start_time >= ?", where.since),
        ("start_time < ?", where.until),
        ("owner = ?", where.owner),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    if before is not None:
        terms.append("(start_time, position) < (?, ?)")
        values += [before.start_time, before.position]
    rows = db.execute(
        f"""select {_SUMMARY_COLUMNS}, position from runs {"where " if terms else ""}{" and ".join(terms)}
        order by start_time desc, position desc limit ?""",  # noqa: S608  only the fixed terms above
        (*values, limit + 1),
    ).fetchall()
    runs = [RunSummary(*_summary(row)) for row in rows[:limit]]
    if len(rows) <= limit:
        return runs, None
    return runs, RunCursor(runs[-1].start_time, rows[limit - 1][-1])


def select_run(db: sqlite3.Connection, run_id: str) -> RunDetail | None:
    """Return one run with its values, None if there is none of that id."""
    row = db.execute(f"select {_SUMMARY_COLUMNS} from runs where run_id = ?", (run_id,)).fetchone()  # noqa: S608
    if row is None:
        return None
    variables = db.execute("select name, value from variables where run_id = ?", (run_id,))
    outputs = db.execute(
        f"""select step_id, {_OUTPUT} from steps where run_id = ? and output is not null
        order by place, step_id""",  # noqa: S608
        (OUTPUTS_BYTES_MAX, run_id),
    ).fetchall()
    context = RunContext(
        {name: Raw(value) for name, value in variables},
        {step_id: Raw(output) for step_id, output in outputs if output is not None},
        [step_id for step_id, output in outputs if output is None],
    )
    return RunDetail(*_summary(row), context=context)


def _summary(row: tuple[Any, ...]) -> list[Any]:
    summary = list(row[: len(RunSummary.__struct_fields__)])
    summary[8] = _raw(summary[8])
    return summary


def select_steps(db: sqlite3.Connection, run_id: str) -> list[StepRow] | None:
    """Return the run's steps in the definition's order, None for an unknown run."""
    if select_workflow_of(db, run_id) is None:
        return None
    rows = db.execute(
        f"""select step_id, name, status, attempt, start_time, end_time, duration, error, {_OUTPUT},
        output is not null from steps where run_id = ? order by place, step_id""",  # noqa: S608
        (OUTPUTS_BYTES_MAX, run_id),
    )
    answered = ([*row[:-3], *map(_raw, row[-3:-1]), bool(row[-1]) and row[-2] is None] for row in rows)
    return [StepRow(*values) for values in answered]


def select_variables(db: sqlite3.Connection, run_id: str) -> list[VariableRow] | None:
    """Return the run's variables by name, None for an unknown run."""
    if select_workflow_of(db, run_id) is None:
        return None
    rows = db.execute("select name, value, step_id, seq from variables where run_id = ?", (run_id,))
    return [VariableRow(name, Raw(value), step_id, seq) for name, value, step_id, seq in rows]


def select_unfinished(db: sqlite3.Connection) -> dict[str, str | None]:
    """Return the owners of the runs without a seal, by the run's id, the oldest first."""
    return dict(
        db.execute("select run_id, owner from runs where status in (?, ?) order by position", LIVE_STATUSES)
    )


def select_workflow_of(db: sqlite3.Connection, run_id: str) -> str | None:
    """Return the id of the workflow that the run is of, None if there is no such run."""
    row = db.execute("select workflow_id from runs where run_id = ?", (run_id,)).fetchone()
    return None if row is None else str(row[0])


def _raw(value: object) -> Raw | None:
    return Raw(value) if isinstance(value, bytes) else None


def count_runs(path: Path) -> dict[str, int]:
    """Return how many runs there are of each status, those without any included. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        found = db.execute("select status, count(*) from runs group by status").fetchall()
    return dict.fromkeys(STATUSES, 0) | {str(status): int(count) for status, count in found}
