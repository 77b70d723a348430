"""What each route takes and answers, as data that openapi.py makes its document of."""

from typing import Any

from msgspec import Struct

from service.api.history import JSON, NDJSON, AuditPage, EventPage
from service.api.parameters import (
    AFTER,
    CURSOR,
    IDEMPOTENCY_KEY,
    LEVEL,
    LIMIT,
    RUNS,
    STEP_ID,
    STREAM,
    TIME,
    TRACEPARENT,
    TRACESTATE,
    TYPES,
    WAIT,
    Parameter,
    Schema,
)
from service.api.requests import ID, RESERVED_IDS
from service.api.rights import ANY, PUBLIC
from service.api.runs import REASON_LENGTH_MAX
from service.api.schemas import (
    Accepted,
    CancelAccepted,
    Health,
    RunPage,
    StepList,
    VariableList,
    Verdict,
    WorkflowBody,
    WorkflowPage,
)
from service.api.sessions import CREDENTIAL_LENGTH_MAX, Session, StreamTicket
from service.api.streams import StreamPage
from service.api.workflows import TEXT_LENGTH_MAX
from service.domain.events import VALUE_BYTES_MAX
from service.projection import RunDetail


class Answered(Struct, frozen=True):
    """One way in which a route answers when all is well."""

    status: int
    text: str
    content: type[Any] | dict[str, type[Any] | Schema] = {}
    headers: tuple[str, ...] = ()

    @property
    def schemas(self) -> dict[str, type[Any] | Schema]:
        """Return the schema of each media type; a type alone stands for JSON."""
        return self.content if isinstance(self.content, dict) else {JSON: self.content}


class Operation(Struct, frozen=True):
    """A route. ``problems``: statuses besides those that any request may get. ``right``: what it needs."""

    name: str
    method: str
    path: str
    summary: str
    answers: tuple[Answered, ...]
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None
    body_required: bool = False
    problems: tuple[int, ...] = ()
    right: str = "read"

    @property
    def tag(self) -> str:
        """Return the heading under which it is listed."""
        if "/runs" in self.path or self.path.endswith("/execute"):
            return "runs"
        return next((tag for tag in ("workflows", "events") if f"/{tag}" in self.path), "service")

    def types(self) -> list[type[Any]]:
        """Return the types of the bodies that it answers with."""
        schemas = [schema for answered in self.answers for schema in answered.schemas.values()]
        return [schema for schema in schemas if isinstance(schema, type)]


TEXT: Schema = {"type": ["string", "null"], "maxLength": TEXT_LENGTH_MAX}
CHOSEN_ID: Schema = {"type": "string", "pattern": f"^{ID.pattern}$", "not": {"enum": list(RESERVED_IDS)}}
DEFINITION: Schema = {"$ref": "#/components/schemas/Definition"}
WORKFLOW: Schema = {
    "oneOf": [
        {
            "type": "object",
            "required": ["definition"],
            "additionalProperties": False,
            "properties": {
                "workflowId": CHOSEN_ID,
                "name": TEXT,
                "description": TEXT,
                "definition": DEFINITION,
            },
        },
        DEFINITION,
    ]
}
EXECUTE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "variables": {
            "type": "object",
            "description": f"They replace the definition's own; at most {VALUE_BYTES_MAX} bytes each.",
        },
        "runId": {
            **CHOSEN_ID,
            "description": "Makes the request repeatable. All users share one namespace of runs: choose what "
            "nobody else would.",
        },
    },
}
CANCEL: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"reason": {"type": ["string", "null"], "maxLength": REASON_LENGTH_MAX}},
}

LOGIN: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["key"],
    "properties": {"key": {"type": "string", "minLength": 1, "maxLength": CREDENTIAL_LENGTH_MAX}},
}
TICKET: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["runId"],
    "properties": {"runId": CHOSEN_ID},
}

STREAMED = (
    "Server-sent: first a block without data, of `retry` and of the id behind which the stream begins; "
    "then events with their seq as id, a comment in every 15 s of silence, and at last `event: end` with "
    "the run's status and lastSeq, or `event: fault` with a problem where it cannot go on. What ends with "
    "neither was lost, or the service shuts down: come back with Last-Event-ID. NDJSON, which all get who "
    "do not ask for the other: an event a line, an empty line in every 15 s of silence, and a last line "
    '{"problem"} where it cannot go on, or the service shuts down. /schema/asyncapi.json has the schemas '
    "of all of it."
)

_W = "/api/v2/workflows"
_R = "/api/v2/workflows/runs/{runId}"

OPERATIONS = (
    Operation(
        "create_workflow", "post", _W, "Create a workflow",
        (
            Answered(201, "It is recorded.", WorkflowBody, headers=("Location",)),
            Answered(200, "It was there with the same body.", WorkflowBody, headers=("Location",)),
        ),
        body=WORKFLOW, body_required=True, problems=(409, 429), right="write",
    ),
    Operation(
        "list_workflows", "get", _W, "List workflows by id",
        (Answered(200, "A page, without the definitions.", WorkflowPage),), (LIMIT, CURSOR),
    ),
    Operation(
        "validate_workflow", "post", f"{_W}/validate", "Say whether a workflow would be accepted",
        (Answered(200, "The verdict with every fault; nothing is recorded.", Verdict),),
        body=WORKFLOW, body_required=True, problems=(429,), right="write",
    ),
    Operation(
        "show_workflow", "get", _W + "/{workflowId}", "Read a workflow",
        (Answered(200, "Its present version.", WorkflowBody),), problems=(404,),
    ),
    Operation(
        "replace_workflow", "put", _W + "/{workflowId}", "Record a new version; runs keep theirs",
        (Answered(200, "The present version.", WorkflowBody),),
        body=WORKFLOW, body_required=True, problems=(404, 429), right="write",
    ),
    Operation(
        "delete_workflow", "delete", _W + "/{workflowId}", "Delete a workflow; history and runs stay",
        (Answered(204, "It is gone."),), problems=(404,), right="write",
    ),
    Operation(
        "execute", "post", _W + "/{workflowId}/execute", "Start a run; answered at once",
        (Answered(202, "It is recorded and will be carried out.", Accepted, headers=("Location",)),),
        (IDEMPOTENCY_KEY, TRACEPARENT, TRACESTATE), body=EXECUTE, problems=(404, 409, 429), right="run",
    ),
    Operation(
        "list_runs", "get", f"{_W}/runs", "List runs, the newest first",
        (Answered(200, "A page.", RunPage),),
        (*RUNS, Parameter("workflowId", "Runs of this workflow.", CHOSEN_ID)),
    ),
    Operation(
        "list_runs_of_workflow", "get", _W + "/{workflowId}/runs", "List a workflow's runs, the newest first",
        (Answered(200, "A page.", RunPage),), RUNS, problems=(404,),
    ),
    Operation(
        "show_run", "get", _R, "Read a run with its values",
        (Answered(200, "The run as it is now.", RunDetail),), problems=(404,),
    ),
    Operation(
        "list_steps", "get", f"{_R}/steps", "List a run's steps",
        (Answered(200, "Every step, in the definition's order.", StepList),), problems=(404,),
    ),
    Operation(
        "list_variables", "get", f"{_R}/variables", "List a run's variables",
        (Answered(200, "Each variable as it is now, and who set it.", VariableList),), problems=(404,),
    ),
    Operation(
        "cancel", "post", f"{_R}/cancel",
        "Wish that a run be cancelled; repeatable. 409 once it is over: runStatus says how",
        (Answered(202, "The wish is recorded.", CancelAccepted),),
        body=CANCEL, problems=(404, 409), right="run",
    ),
    Operation(
        "stream", "get", f"{_R}/stream",
        "Watch a run from its first event, or from a seq, to its end: as server-sent events, as NDJSON, or "
        "as a WebSocket (one event per text frame; closes 1000 with the run's status)",
        (
            Answered(200, STREAMED,
                     {"text/event-stream": {"type": "string"}, NDJSON: {"type": "string"}}),
            Answered(204, "Server-sent: the run is over and nothing is left to send: stop."),
            Answered(101, "The upgrade to a WebSocket."),
        ),
        STREAM, problems=(404, 406, 409, 429),
    ),
    Operation(
        "list_events", "get", f"{_R}/events", "Page through a run's events",
        (Answered(200, "Events as they are stored. Whose status says that the run is over is the last page.",
                  EventPage),),
        (AFTER, LIMIT, TYPES, STEP_ID, LEVEL, WAIT), problems=(404, 409, 429),
    ),
    Operation(
        "list_logs", "get", f"{_R}/logs", "Page through a run's log messages",
        (Answered(200, "step_log events.", EventPage),),
        (
            AFTER,
            LIMIT,
            STEP_ID,
            LEVEL,
        ),
        problems=(404, 409),
    ),
    Operation(
        "audit", "get", "/api/v2/events", "Read the log of all runs: a page, or everything as NDJSON",
        (
            Answered(200, "Events as they are stored, in the order of writing; as NDJSON, one "
                     '{"cursor", "event"} a line.', {JSON: AuditPage, NDJSON: {"type": "string"}}),
        ),
        (
            Parameter("cursor", "Only what was written after it.", {"type": "integer", "minimum": 0}),
            LIMIT,
            Parameter("type", "Event types, separated by commas.", {"type": "string"}),
            Parameter("runId", "Of this run.", CHOSEN_ID),
            Parameter("workflowId", "Of this workflow and its runs.", CHOSEN_ID),
            Parameter("since", "With this timestamp or a later one.", TIME),
            Parameter("until", "With an earlier timestamp.", TIME),
            Parameter("include", "control adds wishes and definitions.", {"enum": ["control"]}),
        ),
        problems=(406, 409),
    ),
    Operation(
        "back_up", "post", "/api/v2/backups", "Read the whole log as it stands, for `tailrace backup`",
        (
            Answered(200, "First where it begins and ends, then every event in the order of writing with its "
                     'stream and place, at last {"end"}; a line {"problem"} where it cannot go on.',
                     {NDJSON: {"type": "string"}}),
        ),
        (
            Parameter("cursor", "Only what was written after it.", {"type": "integer", "minimum": 0}),
            Parameter("upto", "Only what was written until then: the lastCursor of one that was cut off.",
                      {"type": "integer", "minimum": 0}),
        ),
        problems=(409, 429), right="admin",
    ),
    Operation(
        "health", "get", "/health", "Whether the process lives", (Answered(200, "It does.", Health),),
        right=PUBLIC,
    ),
    Operation(
        "ready", "get", "/ready", "Whether runs are accepted and lists up to date; 503 gives every reason "
        "and its code: migrating, draining, disk_full, log_unavailable, recovering, projection_behind, "
        "views_rebuilding",
        (Answered(200, "They are.", Health),), right=PUBLIC,
    ),
    Operation(
        "metrics", "get", "/metrics", "The figures for Prometheus; docs/metrics.md tells what to do",
        (
            Answered(200, "As Accept asks.", {"text/plain": {"type": "string"},
                                              "application/openmetrics-text": {"type": "string"}}),
        ),
        right="metrics",
    ),
    Operation(
        "document", "get", "/schema/openapi.json", "This document",
        (Answered(200, "OpenAPI 3.1.", {JSON: {"type": "object"}}),), right=PUBLIC,
    ),
    Operation(
        "asyncapi", "get", "/schema/asyncapi.json", "The stream's messages and close codes",
        (Answered(200, "AsyncAPI 3.0.", {JSON: {"type": "object"}}),), right=PUBLIC,
    ),
    Operation(
        "page", "get", "/schema", "This document to read",
        (Answered(200, "HTML without scripts.", {"text/html": {"type": "string"}}),), right=PUBLIC,
    ),
    Operation(
        "client", "get", "/client.js", "The client for browsers and Node: import {watch} from it",
        (
            Answered(200, "An ES module.", {"text/javascript": {"type": "string"}}, headers=("ETag",)),
            Answered(304, "If-None-Match names it already.", headers=("ETag",)),
        ),
        (Parameter("If-None-Match", "The ETag of the one at hand.", {"type": "string"}, "header"),),
        right=PUBLIC,
    ),
    Operation(
        "login", "get", "/login", "The page where a person logs in with a key",
        (Answered(200, "HTML.", {"text/html": {"type": "string"}}),), right=PUBLIC,
    ),
    Operation(
        "log_in", "post", "/api/v2/session", "Take a key or a token for the cookie of a session",
        (Answered(200, "The cookie is worth the same, for 12 hours at most.", Session,
                  headers=("Set-Cookie",)),),
        body=LOGIN, body_required=True, problems=(401, 429), right=PUBLIC,
    ),
    Operation(
        "who_am_i", "get", "/api/v2/session", "Who the caller is, and what they may do",
        (Answered(200, "It is they.", Session),), right=ANY,
    ),
    Operation(
        "log_out", "delete", "/api/v2/session", "End the session, everywhere",
        (Answered(204, "It is over.", headers=("Set-Cookie",)),), problems=(429, 503), right=ANY,
    ),
    Operation(
        "issue_ticket", "post", "/api/v2/stream-tickets",
        "For pages of other origins: one stream of one run, once, within half a minute",
        (Answered(201, "Open the WebSocket with these protocols.", StreamTicket),),
        body=TICKET, body_required=True, problems=(429,),
    ),
    Operation(
        "list_streams", "get", "/api/v2/streams", "List the open streams: one's own, or all for an admin",
        (Answered(200, "A page.", StreamPage),),
        (
            LIMIT,
            Parameter("cursor", "The nextCursor of the page before.", {"type": "integer", "minimum": 0}),
            Parameter("runId", "Of this run.", CHOSEN_ID),
        ),
    ),
)  # fmt: skip
