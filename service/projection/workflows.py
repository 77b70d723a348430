"""The list of definitions, as the log's ``workflow_…`` events make it."""

import sqlite3
from typing import ClassVar

import msgspec
from msgspec import Struct

from service.domain.events import WorkflowCreated, WorkflowDeleted, WorkflowUpdated
from service.log import Recorded


class WorkflowSummary(Struct, frozen=True, rename="camel"):
    """A definition in a list; its body is read from the log."""

    workflow_id: str
    version: int
    name: str | None
    description: str | None
    created_at: str
    updated_at: str


class _Payload(Struct, rename="camel"):
    version: int
    name: str | None = None
    description: str | None = None


class _Envelope(Struct, rename="camel"):
    workflow_id: str
    payload: _Payload
    timestamp: str


_decoder = msgspec.json.Decoder(_Envelope)


class WorkflowFold:
    """Takes a batch of events in log order, then writes each definition they touch once."""

    TYPES: ClassVar[frozenset[str]] = frozenset(
        {WorkflowCreated.type, WorkflowUpdated.type, WorkflowDeleted.type}
    )

    def __init__(self) -> None:
        self._rows: dict[str, tuple[object, ...]] = {}

    def add(self, recorded: Recorded) -> None:
        """Fold one event in."""
        envelope = _decoder.decode(recorded.data)
        new = envelope.payload
        old = self._rows.get(envelope.workflow_id)
        deleted = recorded.type == WorkflowDeleted.type
        name, description = (old[2:4] if old else (None, None)) if deleted else (new.name, new.description)
        created_at = old[4] if old else envelope.timestamp
        self._rows[envelope.workflow_id] = (
            envelope.workflow_id, new.version, name, description, created_at, envelope.timestamp, deleted
        )  # fmt: skip

    def write(self, db: sqlite3.Connection) -> None:
        """Bring the tables up to date, inside the caller's transaction."""
        # created_at stays the first event's, as the repository tells it, also for an id that was deleted.
        db.executemany(
            """insert into workflows values (?, ?, ?, ?, ?, ?, ?)
            on conflict do update set version = excluded.version, name = excluded.name,
                description = excluded.description, updated_at = excluded.updated_at,
                deleted = excluded.deleted""",
            self._rows.values(),
        )


def select_workflows(db: sqlite3.Connection, *, after: str, limit: int) -> list[WorkflowSummary]:
    """Return up to ``limit`` definitions that are not deleted, by id, from above the id ``after``."""
    rows = db.execute(
        """select workflow_id, version, name, description, created_at, updated_at from workflows
        where workflow_id > ? and not deleted order by workflow_id limit ?""",
        (after, limit),
    )
    return [WorkflowSummary(*row) for row in rows]


def count_workflows(db: sqlite3.Connection) -> int:
    """Return how many definitions there are that are not deleted."""
    return int(db.execute("select count(*) from workflows where not deleted").fetchone()[0])
