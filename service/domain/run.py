"""A run as the fold of its events: the same events give the same run, for ever."""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct, UnsetType, field

from service.domain.definition import Definition, StepSpec
from service.domain.events import (
    Error,
    Event,
    Payload,
    RunComplete,
    RunStart,
    StepComplete,
    StepLog,
    StepStart,
    VariableChange,
    parse_time,
)

StepPhase = Literal["pending", "running", "waiting", "success", "failed", "skipped", "cancelled"]
RunPhase = Literal["queued", "running", "success", "failed", "cancelled"]

CANCELLED = "cancelled"  # the error code of steps that a user's cancel ended
TOO_MANY_EVENTS = "too_many_events"
INTERNAL_ERROR = "internal_error"
ENDING_CODES = frozenset({CANCELLED, TOO_MANY_EVENTS, INTERNAL_ERROR, "aborted", "run_timeout"})


class StepState(Struct):
    """Where one step stands. ``waiting`` is between two attempts; times are ms since the epoch."""

    spec: StepSpec
    open_dependencies: int
    phase: StepPhase = "pending"
    attempt: int = 0
    interruptions: int = 0
    started_ms: int | None = None
    retry_at_ms: int = 0
    error: Error | None = None

    @property
    def ended(self) -> bool:
        """Whether the step has its step_complete."""
        return self.phase not in {"pending", "running", "waiting"}


class Ending(Struct, frozen=True):
    """Why a run stops before its steps are through: nothing new starts, and this is its outcome."""

    status: Literal["failed", "cancelled"]
    error: Error
    by: str | None = None
    reason: str | None = None
    signal_seq: int | None = None


class Run(Struct):
    """A run's present state; only ``evolve`` changes it (and ``ending``, which a wish may set).

    ``ready``, ``attempting`` and ``waiting`` hold step ids in order of arrival (dicts as ordered sets).
    ``outputs`` are those that a step may still look up: ``readers`` says how many by its name, ``searchers``
    how many by no name.
    """

    id: str
    workflow_id: str
    definition: Definition
    variables: dict[str, Any]
    started_ms: int
    steps: dict[str, StepState]
    last_ms: int
    last_seq: int = 0
    phase: RunPhase = "queued"
    ready: dict[str, None] = field(default_factory=dict)
    attempting: dict[str, None] = field(default_factory=dict)
    waiting: dict[str, None] = field(default_factory=dict)
    open_steps: int = 0
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    readers: dict[str, int] = field(default_factory=dict)
    searchers: int = 0
    ending: Ending | None = None
    error: Error | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def sealed(self) -> bool:
        """Whether the run has its run_complete."""
        return self.phase not in {"queued", "running"}


def begin(run_id: str, start: RunStart, definition: Definition, *, at_ms: int) -> Run:
    """Return the run that its header describes, with nothing done yet."""
    steps = {id_: StepState(spec, len(spec.depends_on)) for id_, spec in definition.steps.items()}
    return Run(
        id=run_id,
        workflow_id=start.workflow_id,
        definition=definition,
        variables=dict(start.variables),
        started_ms=at_ms,
        steps=steps,
        last_ms=at_ms,
        ready={id_: None for id_, state in steps.items() if not state.open_dependencies},
        open_steps=len(steps),
        readers=dict(definition.readers),
        searchers=len(definition.searchers),
        traceparent=None if isinstance(start.traceparent, UnsetType) else start.traceparent,
        tracestate=None if isinstance(start.tracestate, UnsetType) else start.tracestate,
    )


def replay(run: Run, events: Iterable[Event]) -> Run:
    """Apply recorded events to a run that has just begun, and return it."""
    for event in events:
        evolve(run, event.payload, at_ms=parse_time(event.timestamp))
    return run


def evolve(run: Run, payload: Payload, *, at_ms: int) -> None:
    """Apply the next event to ``run``: its seq is the one after ``run.last_seq``."""
    run.last_seq += 1
    run.last_ms = max(run.last_ms, at_ms)
    match payload:
        case StepLog():
            if not isinstance(payload.outcome, UnsetType):
                _attempt_ended(run, payload)
        case StepStart():
            _attempt_started(run, payload, at_ms)
        case VariableChange(change_type="delete"):
            run.variables.pop(payload.var_name, None)
        case VariableChange():
            run.variables[payload.var_name] = payload.new_value
        case StepComplete():
            _step_ended(run, payload)
        case RunComplete():
            run.phase = payload.status
            run.error = None if isinstance(payload.error, UnsetType) else payload.error
        case _:
            raise AssertionError(f"{payload.type} does not belong into a run")


def evolve_lines(run: Run, count: int, *, at_ms: int) -> None:
    """Apply the next ``count`` plain lines: what a step says changes nothing but the run's last seq."""
    run.last_seq += count
    run.last_ms = max(run.last_ms, at_ms)


def _attempt_started(run: Run, payload: StepStart, at_ms: int) -> None:
    state = run.steps[payload.step_id]
    assert not state.ended, "a step that has ended never starts again"
    run.phase = "running"
    state.phase = "running"
    state.attempt = payload.attempt
    if state.started_ms is None:
        state.started_ms = at_ms
    run.ready.pop(payload.step_id, None)
    run.waiting.pop(payload.step_id, None)
    run.attempting[payload.step_id] = None


def _attempt_ended(run: Run, payload: StepLog) -> None:
    state = run.steps[payload.step_id]
    assert state.phase == "running", "only a running attempt can end"
    state.phase = "waiting"
    state.interruptions += payload.outcome == "interrupted"
    state.retry_at_ms = 0 if isinstance(payload.retry_at, UnsetType) else parse_time(payload.retry_at)
    run.attempting.pop(payload.step_id, None)
    run.waiting[payload.step_id] = None


def _step_ended(run: Run, payload: StepComplete) -> None:
    state = run.steps[payload.step_id]
    assert not state.ended, "a step ends once"
    run.phase = "running"
    state.phase = payload.status
    state.error = None if isinstance(payload.error, UnsetType) else payload.error
    for place in (run.ready, run.attempting, run.waiting):
        place.pop(payload.step_id, None)
    run.open_steps -= 1
    _keep_output(run, payload)
    for dependent in run.definition.dependents.get(payload.step_id, ()):
        later = run.steps[dependent]
        later.open_dependencies -= 1
        if not later.open_dependencies and not later.ended:
            run.ready[dependent] = None
    if run.ending is None:
        run.ending = _ending_of(state)


def _keep_output(run: Run, payload: StepComplete) -> None:
    """Keep an output that somebody may look up, and let go what nobody can any more: it may be megabytes."""
    readers, outputs = run.readers, run.outputs
    for read in run.definition.reads[payload.step_id]:
        readers[read] -= 1
        if not readers[read] and not run.searchers:
            outputs.pop(read, None)
    if payload.step_id in run.definition.searchers:
        run.searchers -= 1
        if not run.searchers:
            run.outputs = {step_id: kept for step_id, kept in outputs.items() if readers.get(step_id)}
    if run.searchers or readers.get(payload.step_id):
        output = None if isinstance(payload.output, UnsetType) else payload.output
        run.outputs[payload.step_id] = {"output": output, "status": payload.status}


def _ending_of(state: StepState) -> Ending | None:
    """Return what this step's end means for the run: an aborting failure, or a recorded ending."""
    if state.error is None:
        return None
    if state.phase == "failed" and state.spec.on_error == "abort":
        error = Error(state.error.code, f"{state.spec.id}: {state.error.message}", step_id=state.spec.id)
        return Ending("failed", error)
    if state.phase in {"cancelled", "skipped"} and state.error.code in ENDING_CODES:
        return Ending("cancelled" if state.error.code == CANCELLED else "failed", state.error)
    return None
