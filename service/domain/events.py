"""The events: one Struct per type, and the envelope that is encoded once, stored and sent as it is.

The first three keys of an envelope (runId, type, payload) are the published contract; seq and timestamp
are additions that every known client ignores.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

Level = Literal["debug", "info", "warn", "error"]
StepStatus = Literal["success", "failed", "skipped", "cancelled"]
RunStatus = Literal["success", "failed", "cancelled"]
AttemptOutcome = Literal["failed", "timeout", "interrupted"]

VALUE_BYTES_MAX = 64 * 1024  # one variable, or one recorded step output, as JSON
MESSAGE_BYTES_MAX = 16 * 1024  # the only thing that is ever cut
RUN_INPUT_BYTES_MAX = 192 * 1024  # a definition, with a run's variables in place of its own


class Error(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Why an attempt, a step or a run failed: a code for programs and a sentence for people."""

    code: str
    message: str
    step_id: str | UnsetType = UNSET


class Payload(Struct, frozen=True, rename="camel"):
    """What an event says; ``type`` is its label in the envelope and in the log."""

    type: ClassVar[str]


class StepStart(Payload, frozen=True):
    """An attempt begins; each has one."""

    type: ClassVar[str] = "step_start"
    step_id: str
    step_name: str
    attempt: int


class StepLog(Payload, frozen=True):
    """A message of the engine or a line of a command.

    With ``outcome`` it is also the end of an attempt that will be followed by another: the fold reads
    ``attempt, outcome, error, retry_at`` and never ``message``. ``truncated`` and ``bytes`` (the whole
    length) are set when the message was cut.
    """

    type: ClassVar[str] = "step_log"
    step_id: str
    level: Level
    message: str
    timestamp: str
    attempt: int | UnsetType = UNSET
    outcome: AttemptOutcome | UnsetType = UNSET
    error: Error | UnsetType = UNSET
    retry_at: str | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    bytes: int | UnsetType = UNSET


class VariableChange(Payload, frozen=True):
    """A variable of the run was created, updated or deleted; recorded before the step's step_complete."""

    type: ClassVar[str] = "variable_change"
    step_id: str
    var_name: str
    old_value: Any
    new_value: Any
    change_type: Literal["create", "update", "delete"]


class StepComplete(Payload, frozen=True):
    """The end of a step: exactly one for every step of the definition. ``duration`` in ms."""

    type: ClassVar[str] = "step_complete"
    step_id: str
    step_name: str
    status: StepStatus
    duration: int
    attempt: int
    error: Error | UnsetType = UNSET
    output: Any = UNSET


class RunStart(Payload, frozen=True):
    """The header of a run, seq 0. ``definition`` and ``variables`` as JSON values, never cut.

    ``traceparent`` and ``tracestate``: of the request that started it (trace.py).
    """

    type: ClassVar[str] = "run_start"
    workflow_id: str
    workflow_version: int
    definition: dict[str, Any]
    variables: dict[str, Any]
    trigger: dict[str, Any]
    request_hash: str
    forked_from: str | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    tracestate: str | UnsetType = UNSET


class RunComplete(Payload, frozen=True):
    """The seal of a run: its last event. ``signal_seq`` names the wish that ended it, if one did."""

    type: ClassVar[str] = "run_complete"
    status: RunStatus
    duration: int
    last_seq: int
    error: Error | UnsetType = UNSET
    by: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    signal_seq: int | UnsetType = UNSET


class CancelRequested(Payload, frozen=True):
    """Somebody wishes the run to stop."""

    type: ClassVar[str] = "cancel_requested"
    by: str
    reason: str | UnsetType = UNSET


class SignalReceived(Payload, frozen=True):
    """Somebody tells the run something."""

    type: ClassVar[str] = "signal_received"
    name: str
    payload: Any
    by: str


class WorkflowCreated(Payload, frozen=True):
    """A definition as it was sent. ``request_hash`` is what makes a repeated create recognisable."""

    type: ClassVar[str] = "workflow_created"
    version: int
    definition: dict[str, Any]
    request_hash: str
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    by: str | UnsetType = UNSET


class WorkflowUpdated(WorkflowCreated, frozen=True):
    """A new version of a definition."""

    type: ClassVar[str] = "workflow_updated"


class WorkflowDeleted(Payload, frozen=True):
    """The definition takes no new runs; its history and its runs stay."""

    type: ClassVar[str] = "workflow_deleted"
    version: int
    by: str | UnsetType = UNSET


PAYLOADS: dict[str, type[Payload]] = {
    payload.type: payload
    for payload in (
        StepStart, StepLog, VariableChange, StepComplete, RunStart, RunComplete,
        CancelRequested, SignalReceived, WorkflowCreated, WorkflowUpdated, WorkflowDeleted,
    )
}  # fmt: skip
STEP_TYPES = (StepStart.type, StepLog.type, VariableChange.type, StepComplete.type)


class Event(Struct, frozen=True):
    """A decoded envelope. ``subject`` is the run's id or, of a workflow event, the workflow's."""

    subject: str
    payload: Payload
    seq: int
    timestamp: str


class _RunEnvelope(Struct, frozen=True, rename="camel", gc=False):
    run_id: str
    type: str
    payload: Payload
    seq: int
    timestamp: str


class _WorkflowEnvelope(Struct, frozen=True, rename="camel", gc=False):
    workflow_id: str
    type: str
    payload: Payload
    seq: int
    timestamp: str


class _StoredEnvelope(Struct, frozen=True, rename="camel"):
    type: str
    payload: msgspec.Raw
    seq: int
    timestamp: str
    run_id: str = ""
    workflow_id: str = ""


# What encoding raises for a value that has no JSON form, or is nested too deeply for it.
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)

_encoder = msgspec.json.Encoder()
_sorting = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(_StoredEnvelope)
_payload_decoders = {name: msgspec.json.Decoder(payload) for name, payload in PAYLOADS.items()}


def encode_run_event(run_id: str, payload: Payload, *, seq: int, timestamp: str) -> bytes:
    """Return the envelope of a run's event (streams ``run/<id>`` and ``signal/<id>``) as JSON.

    Raises TypeError or ValueError for a payload that has no JSON form.
    """
    return _encoder.encode(_RunEnvelope(run_id, payload.type, payload, seq, timestamp))


def encode_workflow_event(workflow_id: str, payload: Payload, *, seq: int, timestamp: str) -> bytes:
    """Return the envelope of a definition's event (stream ``workflow/<id>``) as JSON."""
    return _encoder.encode(_WorkflowEnvelope(workflow_id, payload.type, payload, seq, timestamp))


def decode_event(data: bytes) -> Event:
    """Return the event that ``data`` holds. Raises msgspec.DecodeError, or KeyError for an unknown type."""
    envelope = _decoder.decode(data)
    payload = _payload_decoders[envelope.type].decode(envelope.payload)
    return Event(envelope.run_id or envelope.workflow_id, payload, envelope.seq, envelope.timestamp)


class _Trigger(Struct):
    by: str | None = None


class _Triggered(Struct):
    trigger: _Trigger


class _Started(Struct):
    payload: _Triggered


_started_decoder = msgspec.json.Decoder(_Started)


def started_by(data: bytes) -> str | None:
    """Return who started the run whose RunStart ``data`` holds, without reading the rest of it.

    Raises msgspec.DecodeError.
    """
    return _started_decoder.decode(data).payload.trigger.by


def encode_value(value: object) -> bytes:
    """Return any JSON value in its compact form, as it stands inside an event."""
    return _encoder.encode(value)


def encode_sorted(value: object) -> bytes:
    """Return any JSON value with the keys of its objects sorted: equal for equal values."""
    return _sorting.encode(value)


@lru_cache(maxsize=64)  # the events of one moment share it
def format_time(wall_ms: int) -> str:
    """Return milliseconds since the epoch as RFC 3339 with ms and Z."""
    second, ms = divmod(wall_ms, 1000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def parse_time(text: str) -> int:
    """Return an RFC 3339 time as milliseconds since the epoch. Raises ValueError."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)
