"""What happens next in a run: every function returns events and touches nothing.

``advance`` starts what can start, ``finish`` ends an attempt, ``end_early`` stops a run before its steps
are through, ``recover`` deals with attempts that a dead process left open.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct
from msgspec.structs import replace

from service.domain.conditions import Effort
from service.domain.definition import StepSpec
from service.domain.events import (
    MESSAGE_BYTES_MAX,
    UNENCODABLE,
    VALUE_BYTES_MAX,
    Error,
    Level,
    Payload,
    RunComplete,
    StepComplete,
    StepLog,
    StepStart,
    VariableChange,
    encode_sorted,
    encode_value,
    format_time,
)
from service.domain.expressions import MISSING, ExpressionFailed
from service.domain.retry import retry_delay_ms
from service.domain.run import CANCELLED, Ending, Run, StepState

MAPPED_BYTES_MAX = 1024 * 1024  # of all outputs of one attempt
VARIABLES_BYTES_MAX = 8 * 1024 * 1024  # of a run
ERROR_CHARS_MAX = 2_000  # of an error's message; what a program prints is in its own lines
INTERRUPTIONS_MAX = 5  # a step that takes the process down with it is not tried for ever

Json = dict[str, Any]


class Ended(Struct, frozen=True):
    """How an attempt ended, as the outside world reports it.

    ``document`` is what output mapping looks into; ``recorded`` is what the event keeps of it.
    """

    status: Literal["success", "failed", "timeout", "cancelled", "interrupted"]
    document: Json
    recorded: Json
    error: Error | None = None


def expression_root(run: Run, env: Mapping[str, str]) -> Json:
    """Return what templates and conditions of ``run`` look into, without secrets."""
    return {**run.variables, "steps": run.outputs, "env": env}


def advance(
    run: Run, *, now_ms: int, places: int, env: Mapping[str, str], effort: Effort | None = None
) -> list[Payload]:
    """Return the events of one round of progress: steps that start, are skipped, or are tried again.

    At most ``places`` attempts that hold a place begin. Skipping a step can make others ready: apply the
    events and call again until nothing comes back. Once ``effort`` is spent, conditions wait for another.
    """
    if run.ending is not None or run.sealed:
        return []
    events: list[Payload] = []
    root: Json | None = None
    for step_id in _startable(run, now_ms):
        state = run.steps[step_id]
        spec = state.spec
        if state.phase == "pending" and spec.when is not None:
            if effort is not None and effort.left <= 0:
                continue
            root = root or expression_root(run, env)
            try:
                holds = spec.when.holds(root, effort)
            except ExpressionFailed as failure:
                error = Error(failure.code, str(failure))
                events.append(_complete(state, "failed", now_ms, error=error))
                if spec.on_error == "abort":  # nothing starts any more, nor what would have in this round
                    return [event for event in events if isinstance(event, StepComplete)]
                continue
            if not holds:
                events.append(_complete(state, "skipped", now_ms))
                continue
        if spec.holds_slot:
            if places <= 0:
                continue
            places -= 1
        events.append(StepStart(spec.id, spec.name, state.attempt + 1))
        events.append(log_line(spec.id, "info", _starting(state), now_ms))
    return events


def places_wanted(run: Run, *, now_ms: int) -> int:
    """Return how many attempts that hold a place could begin now."""
    return sum(run.steps[step_id].spec.holds_slot for step_id in _startable(run, now_ms))


def next_wake_ms(run: Run) -> int | None:
    """Return when the next waiting attempt is due, None if none waits."""
    return min((run.steps[step_id].retry_at_ms for step_id in run.waiting), default=None)


def finish(run: Run, step_id: str, ended: Ended, *, now_ms: int) -> list[Payload]:
    """Return the events that end the open attempt of ``step_id``: the step's end, or another try to come."""
    state = run.steps[step_id]
    assert state.phase == "running", "only an open attempt can end"
    if run.ending is not None and ended.status in {"cancelled", "interrupted"}:
        return [_stopped(state, run.ending, now_ms)]
    if ended.status == "success":
        changes, fault = _results(run, state.spec, ended, now_ms)
        if fault is None:
            return [*changes, _complete(state, "success", now_ms, output=ended.recorded)]
        ended = Ended("failed", {}, {}, fault)
    error = _told(ended.error or Error(ended.status, f"The attempt ended as {ended.status}."))
    retry_at = None if run.ending is not None else _retry_at_ms(run, state, ended, now_ms)
    if retry_at is not None:
        return [_try_again(state, ended, error, retry_at, now_ms)]
    output = ended.recorded if ended.recorded and _unrecordable(ended.recorded) is None else UNSET
    return [_complete(state, "failed", now_ms, error=error, output=output)]


def recover(run: Run, *, now_ms: int) -> list[Payload]:
    """Return the events that close what a dead process left open: its attempts count as interrupted."""
    error = Error(
        "interrupted", "The service stopped during this attempt; whether it took effect is unknown."
    )
    ended = Ended("interrupted", {}, {}, error)
    open_steps = [id_ for id_ in run.steps if run.steps[id_].phase == "running"]
    return [event for id_ in open_steps for event in finish(run, id_, ended, now_ms=now_ms)]


def end_early(run: Run, ending: Ending, *, now_ms: int, among: Iterable[str] | None = None) -> list[Payload]:
    """Return the ends of all steps that no attempt is running of, because the run stops."""
    states = (run.steps[id_] for id_ in (run.steps if among is None else among))
    return [_stopped(state, ending, now_ms) for state in states if state.phase in {"pending", "waiting"}]


def seal(run: Run, *, now_ms: int) -> list[Payload]:
    """Return the run's last event once every step has ended, else nothing."""
    if run.open_steps or run.sealed:
        return []
    ending = run.ending
    return [
        RunComplete(
            status="success" if ending is None else ending.status,
            duration=max(0, now_ms - run.started_ms),
            last_seq=run.last_seq,
            error=UNSET if ending is None or ending.status == "cancelled" else ending.error,
            by=UNSET if ending is None or ending.by is None else ending.by,
            reason=UNSET if ending is None or ending.reason is None else ending.reason,
            signal_seq=UNSET if ending is None or ending.signal_seq is None else ending.signal_seq,
        )
    ]


def log_line(step_id: str, level: Level, message: str, now_ms: int) -> StepLog:
    """Return a line of a step; what is longer than ``MESSAGE_BYTES_MAX`` is cut and says so."""
    timestamp = format_time(now_ms)
    message = _as_text(message)
    if len(message) * 4 > MESSAGE_BYTES_MAX:
        raw = message.encode(errors="replace")
        if len(raw) > MESSAGE_BYTES_MAX:
            cut = raw[:MESSAGE_BYTES_MAX].decode(errors="ignore")
            return StepLog(step_id, level, cut, timestamp, truncated=True, bytes=len(raw))
    return StepLog(step_id, level, message, timestamp)


def _as_text(message: str) -> str:
    """Return what can be recorded of ``message``: from outside it may hold what has no JSON form."""
    return message if message.isascii() else message.encode(errors="replace").decode()


def _told(error: Error) -> Error:
    """Return ``error`` as it can be recorded: it may hold what came from outside, of any length."""
    message = _as_text(error.message)
    if len(message) > ERROR_CHARS_MAX:
        message = f"{message[:ERROR_CHARS_MAX]}…"
    return error if message == error.message else replace(error, message=message)


def _startable(run: Run, now_ms: int) -> list[str]:
    return [*run.ready, *(id_ for id_ in run.waiting if run.steps[id_].retry_at_ms <= now_ms)]


def _starting(state: StepState) -> str:
    name = f"Starting step: {state.spec.name}"
    return name if state.attempt == 0 else f"{name} (attempt {state.attempt + 1})"


def _complete(
    state: StepState,
    status: Literal["success", "failed", "skipped", "cancelled"],
    now_ms: int,
    *,
    error: Error | None = None,
    output: Any = UNSET,
) -> StepComplete:
    duration = 0 if state.started_ms is None else max(0, now_ms - state.started_ms)
    return StepComplete(
        state.spec.id, state.spec.name, status, duration, state.attempt,
        error=UNSET if error is None else error, output=output,
    )  # fmt: skip


def _stopped(state: StepState, ending: Ending, now_ms: int) -> StepComplete:
    """End a step because its run ends: cancelled by a user's wish or when it had begun, else skipped."""
    if ending.error.code == CANCELLED or state.attempt:
        status: Literal["cancelled", "skipped"] = "cancelled"
    else:
        status = "skipped"
    error = ending.error if ending.error.step_id is UNSET else Error("aborted", ending.error.message)
    return _complete(state, status, now_ms, error=error)


def _retry_at_ms(run: Run, state: StepState, ended: Ended, now_ms: int) -> int | None:
    retries_left = state.attempt < state.spec.retry.max_attempts
    if ended.status == "interrupted":
        allowed = retries_left or state.spec.repeatable or state.spec.retry_interrupted
        dangerous = state.spec.holds_slot  # to wait takes nothing down, however often the service restarts
        if not allowed or (dangerous and state.interruptions >= INTERRUPTIONS_MAX):
            return None
    elif not retries_left:
        return None
    if ended.status == "interrupted" and not retries_left:
        return now_ms
    return now_ms + retry_delay_ms(
        state.spec.retry, run_id=run.id, step_id=state.spec.id, attempt=state.attempt
    )


def _try_again(state: StepState, ended: Ended, error: Error, retry_at_ms: int, now_ms: int) -> StepLog:
    assert ended.status != "success"
    assert ended.status != "cancelled"
    wait_s = (retry_at_ms - now_ms) / 1000
    message = f"Attempt {state.attempt} ended ({ended.status}): {error.message} Next one in {wait_s:g} s."
    line = log_line(state.spec.id, "warn", message, now_ms)
    return StepLog(
        line.step_id, line.level, line.message, line.timestamp,
        attempt=state.attempt, outcome=ended.status, error=error, retry_at=format_time(retry_at_ms),
        truncated=line.truncated, bytes=line.bytes,
    )  # fmt: skip


def _changes(run: Run, spec: StepSpec, document: Json, now_ms: int) -> tuple[list[Payload], Error | None]:
    """Return the changes that the step's output mapping makes, and why they cannot be kept, None if they can.

    A missing path is null, with a warning.
    """
    events: list[Payload] = []
    present, mapped_bytes = run.variables, 0
    for name, path in spec.output:
        value = path.find(document)
        if value is MISSING:
            value = None
            events.append(
                log_line(spec.id, "warn", f"Output {path.text!r} is missing: {name} is null.", now_ms)
            )
        size = len(encode_value(value))
        mapped_bytes += size  # before anything is done with it: it may be mapped thousands of times
        if size > VALUE_BYTES_MAX:
            return [], Error("output_too_large", f"Variable {name} is over {VALUE_BYTES_MAX} bytes.")
        if mapped_bytes > MAPPED_BYTES_MAX:
            said = f"The outputs of one attempt are over {MAPPED_BYTES_MAX} bytes together."
            return [], Error("output_too_large", said)
        if name not in present:
            events.append(VariableChange(spec.id, name, None, value, "create"))
        elif not _same(present[name], value):
            events.append(VariableChange(spec.id, name, present[name], value, "update"))
    return events, _too_many(present, events)


def _too_many(present: Json, changes: Sequence[Payload]) -> Error | None:
    """Say whether a run's variables would be too large together."""
    new = {each.var_name: each.new_value for each in changes if isinstance(each, VariableChange)}
    if len(present) + len(new) <= VARIABLES_BYTES_MAX // VALUE_BYTES_MAX:
        return None  # whatever they are
    if sum(len(encode_value(value)) for value in (present | new).values()) <= VARIABLES_BYTES_MAX:
        return None
    return Error(
        "output_too_large", f"The run's variables would be over {VARIABLES_BYTES_MAX} bytes together."
    )


def _same(old: Any, new: Any) -> bool:
    """JSON equality: objects have no order; 1, 1.0 and true differ, as in bytes that a reader compares."""
    if isinstance(old, str) and isinstance(new, str):
        return old == new
    return encode_sorted(old) == encode_sorted(new)


def _results(run: Run, spec: StepSpec, ended: Ended, now_ms: int) -> tuple[list[Payload], Error | None]:
    """Return the changes that a success makes, and why its results cannot be kept, None if they can."""
    try:
        changes, fault = _changes(run, spec, ended.document, now_ms)
    except UNENCODABLE as error:
        return [], Error("output_unencodable", f"The output has no JSON form: {error}")
    return changes, fault or _unrecordable(ended.recorded)


def _unrecordable(recorded: Json) -> Error | None:
    """Say why what a step leaves cannot be kept as it is, None if it can."""
    try:
        if len(encode_value(recorded)) > VALUE_BYTES_MAX:
            return Error("output_too_large", f"The output is over {VALUE_BYTES_MAX} bytes.")
    except UNENCODABLE as error:
        return Error("output_unencodable", f"The output has no JSON form: {error}")
    return None
