"""Runs, their steps and variables, as the log's events make them: each batch is folded, then written once.

Reads of an event only what the tables keep; step_log, the bulk of any log, is not even asked for.
"""

import sqlite3
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import astuple

from service.domain.events import RunComplete, RunStart, StepComplete, StepStart, VariableChange
from service.log import Recorded


class _NamedStep(Struct, gc=False):
    id: str = ""
    name: str | None = None


class _Definition(Struct):
    steps: dict[str, _NamedStep] | list[_NamedStep]


class _Trigger(Struct):
    by: str | None = None


class _Start(Struct, rename="camel"):
    workflow_id: str
    workflow_version: int
    definition: _Definition
    variables: dict[str, Raw]
    trigger: _Trigger


class _StepStart(Struct, rename="camel", gc=False):
    step_id: str
    step_name: str
    attempt: int


class _VariableChange(Struct, rename="camel"):
    step_id: str
    var_name: str
    new_value: Raw
    change_type: str


class _StepComplete(Struct, rename="camel"):
    step_id: str
    step_name: str
    status: str
    duration: int
    attempt: int
    error: Raw = Raw()
    output: Raw = Raw()


class _Seal(Struct, rename="camel"):
    status: str
    duration: int
    last_seq: int
    error: Raw = Raw()


P = TypeVar("P")


class _Envelope(Struct, Generic[P], rename="camel"):
    run_id: str
    payload: P
    timestamp: str


_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    RunStart.type: msgspec.json.Decoder(_Envelope[_Start]),
    StepStart.type: msgspec.json.Decoder(_Envelope[_StepStart]),
    VariableChange.type: msgspec.json.Decoder(_Envelope[_VariableChange]),
    StepComplete.type: msgspec.json.Decoder(_Envelope[_StepComplete]),
    RunComplete.type: msgspec.json.Decoder(_Envelope[_Seal]),
}


class _RunRow(Struct):
    """A row of runs, fields in the table's order."""

    position: int
    run_id: str
    workflow_id: str
    workflow_version: int
    status: str
    start_time: str
    end_time: str | None = None
    duration: int | None = None
    last_seq: int | None = None
    error: bytes | None = None
    hash: str | None = None
    owner: str | None = None


class _StepRow(Struct):
    """A row of steps, fields in the table's order. None: what the table has stays."""

    run_id: str
    step_id: str
    place: int | None = None
    name: str = ""
    status: str = "pending"
    attempt: int = 0
    start_time: str | None = None
    end_time: str | None = None
    duration: int | None = None
    error: bytes | None = None
    output: bytes | None = None


class RunFold:
    """Takes a batch of events in log order, then writes each row that they touch once."""

    TYPES: ClassVar[frozenset[str]] = frozenset(
        {RunStart.type, StepStart.type, VariableChange.type, StepComplete.type, RunComplete.type}
    )

    def __init__(self) -> None:
        self._started: dict[str, _RunRow] = {}
        self._running: set[str] = set()  # and started in an earlier batch; so are these:
        self._sealed: dict[str, tuple[object, ...]] = {}
        self._steps: dict[tuple[str, str], _StepRow] = {}
        self._variables: dict[tuple[str, str], tuple[object, ...] | None] = {}  # None: deleted

    def add(self, recorded: Recorded) -> None:
        """Fold one event in. Raises msgspec.DecodeError for one that is not of its type's shape."""
        envelope = _decoders[recorded.type].decode(recorded.data)
        run_id, timestamp = envelope.run_id, envelope.timestamp
        match envelope.payload:
            case _StepStart() as step:
                self._step_start(run_id, step, timestamp)
            case _StepComplete() as step:
                self._step_complete(run_id, step, timestamp)
            case _VariableChange() as change:
                deleted = change.change_type == "delete"
                row = (run_id, change.var_name, bytes(change.new_value), change.step_id, recorded.seq)
                self._variables[run_id, change.var_name] = None if deleted else row
            case _Start() as start:
                self._start(run_id, start, timestamp, recorded.position)
            case _Seal() as seal:
                self._seal(run_id, seal, timestamp, recorded.chain.hex() or None)

    def _start(self, run_id: str, start: _Start, timestamp: str, position: int) -> None:
        self._started[run_id] = _RunRow(
            position, run_id, start.workflow_id, start.workflow_version, "queued", timestamp,
            owner=start.trigger.by,
        )  # fmt: skip
        steps = start.definition.steps
        named = steps.items() if isinstance(steps, dict) else [(step.id, step) for step in steps]
        for place, (step_id, step) in enumerate(named):
            self._steps[run_id, step_id] = _StepRow(run_id, step_id, place, step.name or step_id)
        for name, value in start.variables.items():
            self._variables[run_id, name] = (run_id, name, bytes(value), None, 0)

    def _step_start(self, run_id: str, step: _StepStart, timestamp: str) -> None:
        row = self._step(run_id, step.step_id)
        row.name = step.step_name
        row.status = "running"
        row.attempt = step.attempt
        row.start_time = row.start_time or timestamp

    def _step_complete(self, run_id: str, step: _StepComplete, timestamp: str) -> None:
        row = self._step(run_id, step.step_id)
        row.name = step.step_name
        row.status = step.status
        row.attempt = step.attempt
        row.end_time = timestamp
        row.duration = step.duration
        row.error = _bytes(step.error)
        row.output = _bytes(step.output)

    def _step(self, run_id: str, step_id: str) -> _StepRow:
        run = self._started.get(run_id)
        if run is None:
            self._running.add(run_id)
        elif run.status == "queued":
            run.status = "running"
        row = self._steps.get((run_id, step_id))
        if row is None:
            row = self._steps[run_id, step_id] = _StepRow(run_id, step_id)
        return row

    def _seal(self, run_id: str, seal: _Seal, timestamp: str, chain: str | None) -> None:
        run = self._started.get(run_id)
        if run is None:
            self._sealed[run_id] = (
                seal.status, timestamp, seal.duration, seal.last_seq, _bytes(seal.error), chain, run_id
            )  # fmt: skip
            return
        run.status = seal.status
        run.end_time = timestamp
        run.duration = seal.duration
        run.last_seq = seal.last_seq
        run.error = _bytes(seal.error)
        run.hash = chain

    def write(self, db: sqlite3.Connection) -> None:
        """Bring the tables up to date, inside the caller's transaction."""
        db.executemany(
            "insert into runs values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            map(astuple, self._started.values()),
        )
        db.executemany(
            "update runs set status = 'running' where run_id = ? and status = 'queued'",
            [(run_id,) for run_id in self._running],
        )
        db.executemany(
            """update runs set status = ?, end_time = ?, duration = ?, last_seq = ?, error = ?, hash = ?
            where run_id = ?""",
            self._sealed.values(),
        )
        db.executemany(
            """insert into steps values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            on conflict do update set place = coalesce(place, excluded.place), name = excluded.name,
                status = excluded.status, attempt = excluded.attempt,
                start_time = coalesce(start_time, excluded.start_time), end_time = excluded.end_time,
                duration = excluded.duration, error = excluded.error, output = excluded.output""",
            map(astuple, self._steps.values()),
        )
        db.executemany(
            "insert or replace into variables values (?, ?, ?, ?, ?)",
            [row for row in self._variables.values() if row],
        )
        db.executemany(
            "delete from variables where run_id = ? and name = ?",
            [key for key, row in self._variables.items() if row is None],
        )


def _bytes(value: Raw) -> bytes | None:
    return bytes(value) or None  # empty: not in the event
