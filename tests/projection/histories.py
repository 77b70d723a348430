"""Logs to project: runs as the engine writes them, appended in frames as it would."""

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from service.domain.events import (
    Error,
    Payload,
    RunComplete,
    RunStart,
    StepComplete,
    StepLog,
    StepStart,
    VariableChange,
    encode_run_event,
    encode_workflow_event,
    format_time,
)
from service.log import Appended, Log, NewEvent

START_MS = 1_763_721_045_000
GUIDE = {
    "name": "Test Workflow",
    "variables": {"apiUrl": "https://jsonplaceholder.typicode.com/posts/1"},
    "steps": {
        "step1": {
            "id": "step1",
            "name": "Fetch User Data",
            "type": "http",
            "config": {"url": "{{apiUrl}}", "method": "GET"},
            "output": {"userId": "userId", "title": "title"},
        },
        "step2": {
            "id": "step2",
            "name": "Process Data",
            "type": "command",
            "dependsOn": ["step1"],
            "config": {"command": "echo", "args": ["Processing user {{userId}}"]},
        },
    },
}


def run_id_of(number: int) -> str:
    """Return an id that begins with the time, as those that execute gives (uuid7)."""
    head = (START_MS + number).to_bytes(6, "big")
    return str(UUID(bytes=head + sha256(str(number).encode()).digest()[:10], version=4))


def start(workflow_id: str = "guide", definition: dict = GUIDE, **variables: object) -> RunStart:
    return RunStart(
        workflow_id, 1, definition, definition.get("variables", {}) | variables, {"type": "api"}, "0"
    )


def log_line(step_id: str, message: str, level: str = "info") -> StepLog:
    return StepLog(step_id, level, message, format_time(START_MS))


def seal(status: str, last_seq: int, error: Error | None = None) -> RunComplete:
    given = {} if error is None else {"error": error}
    return RunComplete(status, 395, last_seq, **given)


def guide_frames() -> list[list[Payload]]:
    """The guide's run, as the batches in which the engine appends it: 11 events."""
    body = {"userId": 1, "id": 1, "title": "sunt aut facere", "body": "quia et suscipit " * 8}
    return [
        [start()],
        [StepStart("step1", "Fetch User Data", 1), log_line("step1", "Starting step: Fetch User Data")],
        [
            VariableChange("step1", "userId", None, 1, "create"),
            VariableChange("step1", "title", None, "sunt aut facere", "create"),
            StepComplete("step1", "Fetch User Data", "success", 245, 1, output=body),
            StepStart("step2", "Process Data", 1),
            log_line("step2", "Starting step: Process Data"),
        ],
        [log_line("step2", "Processing user 1")],
        [
            StepComplete("step2", "Process Data", "success", 150, 1, output={"stdout": "Processing user 1"}),
            seal("success", 9),
        ],
    ]


async def append_run(
    log: Log, run_id: str, payloads: Sequence[Payload], *, after: int = -1, at_ms: int = START_MS
) -> Appended:
    """Append one batch of a run's events."""
    events = [
        NewEvent(p.type, encode_run_event(run_id, p, seq=seq, timestamp=format_time(at_ms + max(seq, 0))))
        for seq, p in enumerate(payloads, start=after + 1)
    ]
    return await log.append(f"run/{run_id}", events, expected_seq=after)


async def append_frames(
    log: Log, run_id: str, frames: Sequence[Sequence[Payload]], *, at_ms: int = START_MS
) -> Appended:
    """Append a run batch by batch."""
    seq = -1
    for frame in frames:
        appended = await append_run(log, run_id, frame, after=seq, at_ms=at_ms)
        seq = appended.seq
    return appended


async def append_signal(log: Log, run_id: str, payload: Payload, *, after: int = -1) -> Appended:
    data = encode_run_event(run_id, payload, seq=after + 1, timestamp=format_time(START_MS))
    return await log.append(f"signal/{run_id}", [NewEvent(payload.type, data)], expected_seq=after)


async def append_workflow(
    log: Log, workflow_id: str, payload: Payload, *, after: int = -1, at_ms: int = START_MS
) -> Appended:
    data = encode_workflow_event(workflow_id, payload, seq=after + 1, timestamp=format_time(at_ms))
    return await log.append(f"workflow/{workflow_id}", [NewEvent(payload.type, data)], expected_seq=after)


def long_frames(lines: int) -> list[list[Payload]]:
    """A run whose one step writes ``lines`` lines, 500 to a batch."""
    definition = {"steps": {"print": {"type": "command", "config": {"command": "seq"}}}}
    frames: list[list[Payload]] = [[start("long", definition)], [StepStart("print", "print", 1)]]
    for first in range(0, lines, 500):
        frames.append(
            [
                log_line("print", f"line {n} of what a command prints")
                for n in range(first, min(lines, first + 500))
            ]
        )
    frames.append([StepComplete("print", "print", "success", 9000, 1), seal("success", lines + 2)])
    return frames
