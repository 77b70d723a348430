"""Where meaning meets storage: domain events in and out of the log, and nothing else.

The API writes a run's header, wishes and definitions; from then on the engine alone writes ``run/<id>``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from service.definitions import Definitions, Parse
from service.domain.events import (
    CancelRequested,
    Payload,
    RunComplete,
    RunStart,
    StepLog,
    WorkflowCreated,
    WorkflowDeleted,
    WorkflowUpdated,
    decode_event,
    encode_run_event,
    encode_value,
    encode_workflow_event,
    format_time,
    parse_time,
)
from service.domain.run import Run, begin, evolve
from service.errors import Conflict, Damaged, NotFound, WrongExpectedSeq
from service.log import (
    APPEND_BYTES_MAX,
    APPEND_EVENTS_MAX,
    Log,
    NewEvent,
    Recorded,
    chain_next,
    chain_seed,
)

PAGE_EVENTS = 500


class Workflow(Struct, frozen=True):
    """The present version of a definition, as its creator sent it."""

    id: str
    version: int
    definition: dict[str, Any]
    request_hash: str
    name: str | None
    description: str | None
    created_at: str
    updated_at: str
    seq: int
    deleted: bool = False


class RunHeader(Struct, frozen=True):
    """What the first event of a run says, and when it was written."""

    run_id: str
    start: RunStart
    timestamp: str


class Repository:
    """Reads and writes domain events. ``steps_max``: of a definition that is new; None: any number.

    ``parse`` turns a definition that somebody sends into a Definition.
    """

    def __init__(
        self, log: Log, parse: Parse, now_ms: Callable[[], int], *, steps_max: int | None = None
    ) -> None:
        self.log = log
        self.definitions = Definitions(parse, steps_max=steps_max)
        self._now_ms = now_ms

    # Workflows

    async def workflow(self, workflow_id: str) -> Workflow:
        """Return the definition's present version. Raises NotFound, also when it was deleted."""
        workflow = await self._latest(workflow_id)
        if workflow is None or workflow.deleted:
            raise NotFound("workflow", workflow_id)
        return workflow

    async def save_workflow(
        self,
        workflow_id: str,
        definition: dict[str, Any],
        request_hash: str,
        *,
        name: str | None = None,
        description: str | None = None,
        by: str | None = None,
        replace: bool = False,
    ) -> tuple[Workflow, bool]:
        """Record a definition as a new version and return it, with whether anything was recorded.

        ``definition`` has been checked (definitions.py). The same body again records nothing. Raises Conflict
        when the id is taken by another body and ``replace`` is not given, NotFound when there is nothing to
        replace.
        """
        while True:
            latest = await self._latest(workflow_id)
            exists = latest is not None and not latest.deleted
            if replace and not exists:
                raise NotFound("workflow", workflow_id)
            if latest is not None and exists and latest.request_hash == request_hash:
                return latest, False
            if exists and not replace:
                raise Conflict(f"Workflow {workflow_id!r} exists with another body.", workflowId=workflow_id)
            payload = (WorkflowUpdated if replace else WorkflowCreated)(
                version=1 if latest is None else latest.version + 1,
                definition=definition,
                request_hash=request_hash,
                name=_or_unset(name),
                description=_or_unset(description),
                by=_or_unset(by),
            )
            if await self._append_workflow(workflow_id, payload, latest):
                return await self.workflow(workflow_id), True

    async def delete_workflow(self, workflow_id: str, *, by: str | None = None) -> None:
        """Record that the definition is gone; its history and its runs stay. Raises NotFound."""
        while True:
            latest = await self.workflow(workflow_id)
            payload = WorkflowDeleted(version=latest.version + 1, by=_or_unset(by))
            if await self._append_workflow(workflow_id, payload, latest):
                return

    async def _append_workflow(self, workflow_id: str, payload: Payload, latest: Workflow | None) -> bool:
        seq = 0 if latest is None else latest.seq + 1
        data = encode_workflow_event(workflow_id, payload, seq=seq, timestamp=format_time(self._now_ms()))
        try:
            await self.log.append(
                f"workflow/{workflow_id}", [NewEvent(payload.type, data)], expected_seq=seq - 1
            )
        except WrongExpectedSeq:
            return False
        return True

    async def _latest(self, workflow_id: str) -> Workflow | None:
        head = await self.log.wait(f"workflow/{workflow_id}", after=-2)
        if head < 0:
            return None
        (last,) = await self.log.read(f"workflow/{workflow_id}", after=head - 1, limit=1)
        event = decode_event(last.data)
        payload = event.payload
        if isinstance(payload, WorkflowDeleted):
            return Workflow(workflow_id, payload.version, {}, "", None, None, "", "", last.seq, deleted=True)
        assert isinstance(payload, WorkflowCreated)
        (first,) = await self.log.read(f"workflow/{workflow_id}", after=-1, limit=1)
        return Workflow(
            id=workflow_id,
            version=payload.version,
            definition=payload.definition,
            request_hash=payload.request_hash,
            name=_or_none(payload.name),
            description=_or_none(payload.description),
            created_at=decode_event(first.data).timestamp,
            updated_at=event.timestamp,
            seq=last.seq,
        )

    # Runs

    async def start_run(self, run_id: str, start: RunStart) -> tuple[RunHeader, bool]:
        """Accept a run and return its header, with whether it is new.

        A repeated request (same ``request_hash``) gets the header that is there. Raises Conflict when
        ``run_id`` belongs to a different request.
        """
        timestamp = format_time(self._now_ms())
        data = encode_run_event(run_id, start, seq=0, timestamp=timestamp)
        try:
            await self.log.append(f"run/{run_id}", [NewEvent(start.type, data)], expected_seq=-1)
        except WrongExpectedSeq:
            header = await self.run_header(run_id)
            if header.start.request_hash != start.request_hash:
                raise Conflict(f"Run {run_id!r} exists with another request.", runId=run_id) from None
            return header, False
        return RunHeader(run_id, start, timestamp), True

    async def run_header(self, run_id: str) -> RunHeader:
        """Return how the run was started. Raises NotFound."""
        page = await self.log.read(f"run/{run_id}", after=-1, limit=1)
        if not page:
            raise NotFound("run", run_id)
        event = decode_event(page[0].data)
        assert isinstance(event.payload, RunStart)
        return RunHeader(run_id, event.payload, event.timestamp)

    async def run_seal(self, run_id: str) -> RunComplete | None:
        """Return how the run ended, None while it goes on. Raises NotFound."""
        head = await self.log.wait(f"run/{run_id}", after=-2)
        if head < 0:
            raise NotFound("run", run_id)
        (last,) = await self.log.read(f"run/{run_id}", after=head - 1, limit=1)
        if last.type != RunComplete.type:
            return None
        payload = decode_event(last.data).payload
        assert isinstance(payload, RunComplete)
        return payload

    async def request_cancel(self, run_id: str, *, by: str, reason: str | None = None) -> None:
        """Record the wish that the run be cancelled. Raises NotFound, or Conflict once it is over."""
        seal = await self.run_seal(run_id)
        if seal is not None:
            raise Conflict(f"Run {run_id!r} is over: {seal.status}.", runId=run_id, runStatus=seal.status)
        await self.append_signal(run_id, CancelRequested(by=by, reason=_or_unset(reason)))

    async def append_signal(self, run_id: str, payload: Payload) -> int:
        """Append a wish to ``signal/<id>`` and return its seq."""
        stream = f"signal/{run_id}"
        while True:
            head = await self.log.wait(stream, after=-2)
            data = encode_run_event(run_id, payload, seq=head + 1, timestamp=format_time(self._now_ms()))
            try:
                appended = await self.log.append(stream, [NewEvent(payload.type, data)], expected_seq=head)
            except WrongExpectedSeq:
                continue
            return appended.seq

    async def load_run(self, run_id: str) -> Run | None:
        """Return the run as its events leave it, None if there is none or it is over.

        Raises Damaged when the stored events do not fit their chain, InvalidInput when this release
        cannot read the definition.
        """
        stream, run, after = f"run/{run_id}", None, -1
        chain = chain_seed(stream)
        while page := await self.log.read(stream, after=after, limit=PAGE_EVENTS):
            for recorded in page:
                chain = chain_next(chain, recorded.data)
                run = await self._begun(recorded) if run is None else self._applied(run, recorded)
                if recorded.chain not in {b"", chain}:
                    raise Damaged(stream, recorded.seq)
            after = page[-1].seq
            assert run is not None
            run.last_ms = max(run.last_ms, parse_time(decode_event(page[-1].data).timestamp))
        return None if run is None or run.sealed else run

    async def _begun(self, recorded: Recorded) -> Run:
        event = decode_event(recorded.data)
        assert isinstance(event.payload, RunStart), "a run begins with its header"
        definition = await self.definitions.recorded(encode_value(event.payload.definition))
        return begin(event.subject, event.payload, definition, at_ms=parse_time(event.timestamp))

    def _applied(self, run: Run, recorded: Recorded) -> Run:
        if recorded.type == StepLog.type and b'"outcome":' not in recorded.data:
            run.last_seq = recorded.seq  # most events of most runs: lines, which change nothing
        else:
            event = decode_event(recorded.data)
            evolve(run, event.payload, at_ms=parse_time(event.timestamp))
        return run

    async def pending_cancel(self, run_id: str) -> tuple[int, CancelRequested] | None:
        """Return the first wish to cancel the run, with its seq."""
        after = -1
        while page := await self.log.read(f"signal/{run_id}", after=after, limit=PAGE_EVENTS):
            after = page[-1].seq
            for recorded in page:
                if recorded.type == CancelRequested.type:
                    payload = decode_event(recorded.data).payload
                    assert isinstance(payload, CancelRequested)
                    return recorded.seq, payload
        return None

    async def holds(self, stream: str, events: Sequence[NewEvent], *, after: int) -> bool:
        """Say whether exactly these events stand after seq ``after``: a lost answer was a yes."""
        stored: list[bytes] = []
        while len(stored) < len(events):
            page = await self.log.read(stream, after=after + len(stored), limit=len(events) - len(stored))
            if not page:
                return False
            stored += [recorded.data for recorded in page]
        return stored == [event.data for event in events]


def run_frames(
    run_id: str, payloads: Iterable[Payload], *, after: int, timestamp: str
) -> Iterator[list[NewEvent]]:
    """Yield a run's events, encoded with the seqs after ``after``, in batches that one append takes."""
    frame: list[NewEvent] = []
    size = 0
    for seq, payload in enumerate(payloads, start=after + 1):
        data = encode_run_event(run_id, payload, seq=seq, timestamp=timestamp)
        if frame and (size + len(data) > APPEND_BYTES_MAX or len(frame) == APPEND_EVENTS_MAX):
            yield frame
            frame, size = [], 0
        frame.append(NewEvent(payload.type, data))
        size += len(data)
    if frame:
        yield frame


def request_hash(request: object) -> str:
    """Return the SHA-256 of a request's JSON with sorted keys: equal requests, equal hashes."""
    return sha256(msgspec.json.encode(request, order="sorted")).hexdigest()


def _or_unset(text: str | None) -> str | UnsetType:
    return UNSET if text is None else text


def _or_none(text: str | UnsetType) -> str | None:
    return None if isinstance(text, UnsetType) else text
