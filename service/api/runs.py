"""The routes of runs: execute, list, read, cancel. None of them waits for a run to go on."""

from typing import Any
from uuid import UUID, uuid5

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from msgspec import Struct
from uuid_utils.compat import uuid7

from service.access import Grant
from service.api.context import Context, context_of
from service.api.problems import Problem, Refused, problem_of
from service.api.requests import (
    LIMIT_DEFAULT,
    AnyRequest,
    answer,
    as_id,
    as_limit,
    as_time,
    checked_id,
    id_fault,
    one_of,
    read_object,
    read_query,
    unknown_keys,
)
from service.api.rights import caller, needs, own_run
from service.api.schemas import Accepted, CancelAccepted, RunPage, StepList, VariableList
from service.api.tracing import Headers, traced
from service.api.workflows import check_disk, check_size
from service.domain.events import RunStart
from service.domain.variables import check_variables
from service.errors import Conflict, Fault, InvalidInput, LogUnavailable, NotFound
from service.projection import STATUSES, RunCursor, RunFilter
from service.repository import RunHeader, Workflow, request_hash

KEY_LENGTH_MAX = 255  # characters of an Idempotency-Key
REASON_LENGTH_MAX = 1_024  # characters

_KEY_NAMESPACE = UUID("6f0b6a50-7d0c-5e43-9b8e-3d1f2f6c9a11")


class Wanted(Struct, frozen=True):
    """A run that a client asks for. ``chosen``: its id is the client's, so the request can be repeated."""

    run_id: str
    chosen: bool
    variables: dict[str, Any]


@post("/workflows/{workflow_id:str}/execute", status_code=202, opt=needs("run"))
async def execute(request: AnyRequest, workflow_id: FromPath[str]) -> Response[bytes]:
    """Start a run and answer at once: 202 with its id, and the same again for the same request."""
    read_query(request)
    context, grant = context_of(request), caller(request)
    checked_id(workflow_id, "workflow")
    keys = request.headers.getall("idempotency-key", [])
    wanted = _check_execute(await read_object(request), f"{workflow_id}\n{grant.name}", keys)
    try:
        header, status = await _start(context, workflow_id, wanted, grant, request.scope["headers"])
    except LogUnavailable as error:
        problem = problem_of(error)
        extra = problem.extra | {"runId": wanted.run_id}
        raise Refused(msgspec.structs.replace(problem, extra=extra)) from error
    accepted = Accepted(header.run_id, header.start.workflow_id, status, header.timestamp)
    return answer(accepted, 202, {"location": f"/api/v2/workflows/runs/{header.run_id}"})


async def _start(
    context: Context, workflow_id: str, wanted: Wanted, grant: Grant, headers: Headers
) -> tuple[RunHeader, str]:
    """Return the run's header and status, of a new run or of the one that the same request has started."""
    hash_ = request_hash({"workflowId": workflow_id, "variables": wanted.variables})
    repository = context.repository
    if wanted.chosen:
        try:
            header = await repository.run_header(wanted.run_id)
        except NotFound:
            pass
        else:
            if header.start.request_hash != hash_ or not await context.may_see(grant, wanted.run_id):
                raise Conflict(f"Run {wanted.run_id!r} exists with another request.", runId=wanted.run_id)
            return header, await _status(context, wanted.run_id)
    workflow = await repository.workflow(workflow_id)
    _check_room(context, wanted.run_id)
    start = traced(_run_start(workflow, wanted.variables, hash_, by=grant.name), headers)
    with context.admission.one(wanted.run_id, grant) as there_already:
        header, new = await repository.start_run(wanted.run_id, start)
        if not new:
            there_already()
    return header, "queued" if new else await _status(context, wanted.run_id)


def _run_start(workflow: Workflow, given: dict[str, Any], hash_: str, *, by: str) -> RunStart:
    variables = (workflow.definition.get("variables") or {}) | given
    check_size(workflow.definition, variables)
    return RunStart(
        workflow_id=workflow.id,
        workflow_version=workflow.version,
        definition=workflow.definition,
        variables=variables,
        trigger={"type": "api", "by": by},
        request_hash=hash_,
    )


def _check_room(context: Context, run_id: str) -> None:
    """Refuse a run that we could not carry."""
    extra = {"runId": run_id, "outcome": "not stored"}
    if context.closing.is_set():
        said = "The service is shutting down."
        raise Refused(Problem(503, said, extra=extra, headers={"retry-after": "1"}))
    check_disk(context, extra)


async def _status(context: Context, run_id: str) -> str:
    seal = await context.repository.run_seal(run_id)
    if seal is not None:
        return seal.status
    return "running" if await context.log.wait(f"run/{run_id}", after=-2) > 0 else "queued"


def _check_execute(document: dict[str, Any], scope: str, keys: list[str]) -> Wanted:
    """Return what is asked for. An idempotency key names one run within ``scope``."""
    faults = unknown_keys(document, ("variables", "runId"))
    run_id = document.get("runId")
    if run_id is not None and (fault := id_fault(run_id, "/runId")):
        faults.append(fault)
    variables = document.get("variables")
    variables = {} if variables is None else variables
    faults += check_variables(variables, "/variables")
    if keys and run_id is not None:
        faults.append(Fault("/runId", "cannot be given together with an Idempotency-Key"))
    if len(keys) > 1 or (keys and not (keys[0].isprintable() and 1 <= len(keys[0]) <= KEY_LENGTH_MAX)):
        said = f"must be one text of 1 to {KEY_LENGTH_MAX} printable characters"
        faults.append(Fault("/headers/idempotency-key", said))
    if faults:
        raise InvalidInput(sorted(faults))
    if keys:
        run_id = str(uuid5(_KEY_NAMESPACE, f"{scope}\n{keys[0]}"))
    return Wanted(run_id or str(uuid7()), run_id is not None, variables)


@get("/workflows/runs", opt=needs("read"))
async def list_runs(request: AnyRequest) -> Response[bytes]:
    """List runs, the newest first."""
    return await _list(request)


@get("/workflows/{workflow_id:str}/runs", opt=needs("read"))
async def list_runs_of_workflow(request: AnyRequest, workflow_id: FromPath[str]) -> Response[bytes]:
    """List the runs of one workflow, the newest first; also of a deleted one."""
    return await _list(request, checked_id(workflow_id, "workflow"))


async def _list(request: AnyRequest, workflow_id: str | None = None) -> Response[bytes]:
    checks = {
        "limit": as_limit,
        "cursor": RunCursor.parse,
        "status": one_of(*STATUSES),
        "since": as_time,
        "until": as_time,
    }
    query = read_query(request, **checks, **({"workflowId": as_id} if workflow_id is None else {}))
    limit, grant = query.get("limit", LIMIT_DEFAULT), caller(request)
    where = RunFilter(
        workflow_id=workflow_id or query.get("workflowId"),
        status=query.get("status"),
        since=query.get("since"),
        until=query.get("until"),
        owner=None if grant.sees_all else grant.name,
    )
    projections = context_of(request).projections
    runs, cursor = await projections.runs(where, before=query.get("cursor"), limit=limit)
    return answer(RunPage(runs, limit, None if cursor is None else cursor.text()))


@get("/workflows/runs/{run_id:str}", opt=needs("read"))
async def show_run(request: AnyRequest, run_id: FromPath[str]) -> Response[bytes]:
    """Return a run with its present variables and its steps' outputs."""
    read_query(request)
    projections = context_of(request).projections
    run = await projections.run_detail(await own_run(request, run_id))
    if run is None:
        raise NotFound("run", run_id)
    return answer(run)


@get("/workflows/runs/{run_id:str}/steps", opt=needs("read"))
async def list_steps(request: AnyRequest, run_id: FromPath[str]) -> Response[bytes]:
    """Return every step of a run, in the definition's order."""
    read_query(request)
    projections = context_of(request).projections
    steps = await projections.steps(await own_run(request, run_id))
    if steps is None:
        raise NotFound("run", run_id)
    return answer(StepList(steps))


@get("/workflows/runs/{run_id:str}/variables", opt=needs("read"))
async def list_variables(request: AnyRequest, run_id: FromPath[str]) -> Response[bytes]:
    """Return a run's variables as they are now, and which step set each."""
    read_query(request)
    projections = context_of(request).projections
    variables = await projections.variables(await own_run(request, run_id))
    if variables is None:
        raise NotFound("run", run_id)
    return answer(VariableList(variables))


@post("/workflows/runs/{run_id:str}/cancel", status_code=202, opt=needs("run"))
async def cancel(request: AnyRequest, run_id: FromPath[str]) -> Response[bytes]:
    """Record the wish that a run be cancelled. It may be repeated; 409 once the run is over."""
    read_query(request)
    context = context_of(request)
    await own_run(request, run_id)
    document = await read_object(request)
    faults = unknown_keys(document, ("reason",))
    reason = document.get("reason")
    if reason is not None and (not isinstance(reason, str) or len(reason) > REASON_LENGTH_MAX):
        faults.append(Fault("/reason", f"must be a text of at most {REASON_LENGTH_MAX} characters"))
    if faults:
        raise InvalidInput(faults)
    await context.repository.request_cancel(run_id, by=caller(request).name, reason=reason)
    return answer(CancelAccepted(run_id, await _status(context, run_id)), 202)
