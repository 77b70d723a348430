"""The bodies that the routes answer with; their rows belong to the projection."""

from typing import Any

from msgspec import Struct

from service.errors import Fault
from service.projection import RunSummary, StepRow, VariableRow, WorkflowSummary
from service.repository import Workflow


class WorkflowBody(Struct, frozen=True, rename="camel"):
    """A definition as it was sent, with its version."""

    workflow_id: str
    version: int
    name: str | None
    description: str | None
    definition: dict[str, Any]
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, workflow: Workflow) -> "WorkflowBody":
        """Return the body of ``workflow``."""
        return cls(
            workflow_id=workflow.id,
            version=workflow.version,
            name=workflow.name,
            description=workflow.description,
            definition=workflow.definition,
            created_at=workflow.created_at,
            updated_at=workflow.updated_at,
        )


class Verdict(Struct, frozen=True):
    """Whether a definition would be accepted, and every fault if not."""

    valid: bool
    errors: list[Fault]


class Accepted(Struct, frozen=True, rename="camel"):
    """A run that was accepted. ``status`` is queued at first; a repeated request learns the present one."""

    run_id: str
    workflow_id: str
    status: str
    start_time: str


class CancelAccepted(Struct, frozen=True, rename="camel"):
    """A wish that was recorded; the run's own events tell when it has been fulfilled."""

    run_id: str
    status: str


class WorkflowPage(Struct, frozen=True, rename="camel"):
    """Workflows by id; ``next_cursor`` is None on the last page."""

    data: list[WorkflowSummary]
    total: int
    limit: int
    next_cursor: str | None


class RunPage(Struct, frozen=True, rename="camel"):
    """Runs, the newest first; ``next_cursor`` is None on the last page."""

    data: list[RunSummary]
    limit: int
    next_cursor: str | None


class StepList(Struct, frozen=True):
    """Every step of a run."""

    data: list[StepRow]


class VariableList(Struct, frozen=True):
    """Every variable of a run."""

    data: list[VariableRow]


class Health(Struct, frozen=True):
    """The service answers: ``ok`` or ``ready``."""

    status: str
    version: str
