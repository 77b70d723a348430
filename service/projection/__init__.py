"""What the lists and details of the API are read from: tables made from the log, and made again at will.

Follows the log like anyone else. Losing the views file loses nothing but the time to fill it.
"""

from service.projection.projections import Lag, Making, Projections
from service.projection.reads import (
    STATUSES,
    RunCursor,
    RunDetail,
    RunFilter,
    RunSummary,
    StepRow,
    VariableRow,
)
from service.projection.unfinished import Unfinished
from service.projection.workflows import WorkflowSummary

__all__ = [
    "STATUSES",
    "Lag",
    "Making",
    "Projections",
    "RunCursor",
    "RunDetail",
    "RunFilter",
    "RunSummary",
    "StepRow",
    "Unfinished",
    "VariableRow",
    "WorkflowSummary",
]
