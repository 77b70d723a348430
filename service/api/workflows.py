"""The routes of definitions: create, list, read, replace, delete, validate."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath
from msgspec import Struct
from uuid_utils.compat import uuid7

from service.api.context import Context, context_of
from service.api.problems import Problem, Refused
from service.api.requests import (
    LIMIT_DEFAULT,
    AnyRequest,
    answer,
    as_id,
    as_limit,
    checked_id,
    id_fault,
    read_object,
    read_query,
    unknown_keys,
)
from service.api.rights import caller, needs
from service.api.schemas import Verdict, WorkflowBody, WorkflowPage
from service.domain.events import RUN_INPUT_BYTES_MAX
from service.errors import Fault, InvalidInput
from service.repository import request_hash

Check = Callable[..., Awaitable[None]]  # Definitions.check, for one caller

BODY_KEYS = ("workflowId", "name", "description", "definition")
NOT_STORED = {"outcome": "not stored"}
TEXT_LENGTH_MAX = 4_096  # characters of a name or a description


class Sent(Struct, frozen=True):
    """What a client sent as a workflow, checked."""

    workflow_id: str | None
    name: str | None
    description: str | None
    definition: dict[str, Any]

    @property
    def hash(self) -> str:
        """Return what tells a repeated request from another one."""
        return request_hash({"name": self.name, "description": self.description, "of": self.definition})


@post("/workflows", status_code=201, opt=needs("write"))
async def create_workflow(request: AnyRequest) -> Response[bytes]:
    """Create a workflow: 201, or 200 if it is there with the same body. 409 if with another one."""
    read_query(request)
    context = context_of(request)
    check = _check_of(request)
    sent = await check_workflow(await read_object(request), check)
    check_disk(context, NOT_STORED)
    workflow_id = sent.workflow_id or str(uuid7())
    workflow, recorded = await context.repository.save_workflow(
        workflow_id,
        sent.definition,
        sent.hash,
        name=sent.name,
        description=sent.description,
        by=caller(request).name,
    )
    location = {"location": f"/api/v2/workflows/{workflow_id}"}
    return answer(WorkflowBody.of(workflow), 201 if recorded else 200, location)


@get("/workflows", opt=needs("read"))
async def list_workflows(request: AnyRequest) -> Response[bytes]:
    """List the workflows by id, without their definitions."""
    query = read_query(request, limit=as_limit, cursor=as_id)
    limit = query.get("limit", LIMIT_DEFAULT)
    projections = context_of(request).projections
    rows = await projections.workflows(after=query.get("cursor", ""), limit=limit + 1)
    more = len(rows) > limit
    total = await projections.workflow_count()
    return answer(WorkflowPage(rows[:limit], total, limit, rows[limit - 1].workflow_id if more else None))


@get("/workflows/{workflow_id:str}", opt=needs("read"))
async def show_workflow(request: AnyRequest, workflow_id: FromPath[str]) -> Response[bytes]:
    """Return a workflow's present version with its definition."""
    read_query(request)
    workflow = await context_of(request).repository.workflow(checked_id(workflow_id, "workflow"))
    return answer(WorkflowBody.of(workflow))


@put("/workflows/{workflow_id:str}", opt=needs("write"))
async def replace_workflow(request: AnyRequest, workflow_id: FromPath[str]) -> Response[bytes]:
    """Record a new version of a workflow; runs that were started keep theirs."""
    read_query(request)
    checked_id(workflow_id, "workflow")
    context = context_of(request)
    check = _check_of(request)
    sent = await check_workflow(await read_object(request), check)
    if sent.workflow_id not in {None, workflow_id}:
        fault = Fault("/workflowId", f"must be {workflow_id!r} as in the address, or left out")
        raise InvalidInput([fault])
    check_disk(context, NOT_STORED)
    workflow, _ = await context.repository.save_workflow(
        workflow_id,
        sent.definition,
        sent.hash,
        name=sent.name,
        description=sent.description,
        by=caller(request).name,
        replace=True,
    )
    return answer(WorkflowBody.of(workflow))


@delete("/workflows/{workflow_id:str}", status_code=204, opt=needs("write"))
async def delete_workflow(request: AnyRequest, workflow_id: FromPath[str]) -> None:
    """Delete a workflow. Its history and its runs stay."""
    read_query(request)
    await context_of(request).repository.delete_workflow(
        checked_id(workflow_id, "workflow"), by=caller(request).name
    )


@post("/workflows/validate", status_code=200, opt=needs("write"))
async def validate_workflow(request: AnyRequest) -> Response[bytes]:
    """Say whether a workflow would be accepted, and every fault if not. Nothing is recorded."""
    read_query(request)
    check = _check_of(request)
    document = await read_object(request)
    try:
        await check_workflow(document, check)
    except InvalidInput as error:
        return answer(Verdict(valid=False, errors=error.faults))
    return answer(Verdict(valid=True, errors=[]))


def _check_of(request: AnyRequest) -> Check:
    """Return the check of the definition that a request is about to bring. Raises Throttled."""
    context, grant = context_of(request), caller(request)
    allow = partial(context.admission.may_check, grant)
    allow()
    charge = partial(context.admission.checked, grant)
    return partial(context.repository.definitions.check, allow=allow, charge=charge)


async def check_workflow(document: dict[str, Any], check: Check) -> Sent:
    """Return the workflow that a body holds: wrapped as the guide sends it, or a bare definition.

    Raises InvalidInput with every fault, Refused (413) for a definition over the limit, Throttled.
    """
    if "steps" in document and "definition" not in document:
        await check(document, size=check_size(document))
        return Sent(None, None, None, document)
    faults = unknown_keys(document, BODY_KEYS)
    workflow_id = document.get("workflowId")
    if workflow_id is not None and (fault := id_fault(workflow_id, "/workflowId")):
        faults.append(fault)
    for key in ("name", "description"):
        text = document.get(key)
        if text is not None and (not isinstance(text, str) or len(text) > TEXT_LENGTH_MAX):
            faults.append(Fault(f"/{key}", f"must be a text of at most {TEXT_LENGTH_MAX} characters"))
    definition = document.get("definition")
    if not isinstance(definition, dict):
        said = "must be an object" if "definition" in document else "is missing (or send a bare definition)"
        faults.append(Fault("/definition", said))
    else:
        size = check_size(definition)
        try:
            await check(definition, size=size)
        except InvalidInput as error:
            faults += [Fault(f"/definition{fault.pointer}", fault.message) for fault in error.faults]
    if faults:
        raise InvalidInput(sorted(faults), detail="The workflow is not valid.")
    assert isinstance(definition, dict)
    return Sent(workflow_id, document.get("name"), document.get("description"), definition)


def check_size(definition: dict[str, Any], variables: dict[str, Any] | None = None) -> int:
    """Refuse (413) a definition that is too large, with a run's ``variables``, if any, in place of its own.

    Return its bytes. Each variable counts once, so that what can be created can be executed as it is.
    """
    size = len(msgspec.json.encode(definition | {"variables": variables} if variables else definition))
    if size > RUN_INPUT_BYTES_MAX:
        said = f"Definition and variables have {size} bytes together; the limit is {RUN_INPUT_BYTES_MAX}."
        raise Refused(Problem(413, said))
    return size


def check_disk(context: Context, extra: Mapping[str, Any]) -> None:
    """Refuse (503) to record more where little space is left: what runs has to come to its end."""
    if context.min_free_bytes and context.free_bytes() < context.min_free_bytes:
        said = f"Less than {context.min_free_bytes} bytes are free beside the log."
        raise Refused(Problem(503, said, extra=dict(extra), headers={"retry-after": "30"}))
