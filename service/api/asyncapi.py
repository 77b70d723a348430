"""The AsyncAPI 3 document: the stream of a run, every message in it, and how it is closed."""

from typing import Any

import msgspec
from litestar import Response, get

from service.api.filters import RUN_TYPES
from service.api.health import VERSION
from service.api.openapi import PROBLEM
from service.api.parameters import STREAM, Schema
from service.api.requests import ID, answer
from service.api.rights import PUBLIC, needs
from service.api.stream_control import CONTROLS
from service.api.stream_form import Ended
from service.domain.events import PAYLOADS

ADDRESS = "/api/v2/workflows/runs/{runId}/stream"

# When a WebSocket is closed so, and what its client does then.
CLOSE_CODES = {
    1000: ("The run is over and all is sent; the reason is: run STATUS lastSeq=N.", "stop"),
    1002: ("The client breaks the WebSocket protocol.", "mend"),
    1007: ("A text of the client is not UTF-8.", "mend"),
    1008: ("The client floods us with frames.", "mend"),
    1009: ("A frame of the client is too big.", "mend"),
    1011: ("No PONG, or a fault of ours.", "reconnect with after"),
    1012: ("The service is shutting down.", "reconnect with after"),
    1013: ("It is overloaded, or its log is unavailable.", "reconnect with after"),
    4400: ("With errors=close: something in the request is wrong.", "mend"),
    4401: (
        "With errors=close: who are you? Also in mid-stream, once the credential is worth nothing.",
        "log in",
    ),
    4403: ("With errors=close: this origin, or you, may not. Also in mid-stream.", "log in"),
    4404: ("With errors=close, or when wait expires: there is no such run.", "stop"),
    4408: ("The client took nothing for the stall time.", "reconnect with after"),
    4409: ("With errors=close, or after a wait: the cursor is above the run's last seq.", "begin anew"),
    4410: ("With errors=close: it is gone.", "stop"),
    4429: ("With errors=close: a limit of streams is reached.", "reconnect with after"),
    4500: ("An event is damaged; the reason names its seq.", "tell the operator"),
}

# What is said over HTTP alone: a WebSocket has close codes for that.
HTTP_ONLY: dict[str, Schema] = {
    "sse.end": {
        "summary": "Server-sent, `event: end`: the run is over and all is sent. Who comes back behind "
        "its id, as a browser does, is answered 204, and stops.",
        "payload": {"$ref": "#/components/schemas/Ended"},
    },
    "sse.fault": {
        "summary": "Server-sent, `event: fault`: the stream cannot go on. The problem's status says "
        "whether to come back, as that of an answer would; if it has a seq, that event is damaged.",
        "payload": {"$ref": "#/components/schemas/Problem"},
    },
    "ndjson.problem": {
        "summary": "NDJSON, the last line of a stream that cannot go on, or whose service shuts down: "
        "then 503, come back behind the last seq. A body that has its proper end without it is whole.",
        "payload": {
            "type": "object",
            "required": ["problem"],
            "properties": {"problem": {"$ref": "#/components/schemas/Problem"}},
        },
    },
}

FORMS = (
    "Over WebSocket a message is a text frame, and the close code says how it ended. Server-sent, events "
    "have their seq as id and no name; messages about the stream have their type as name. First comes a "
    "block without data: `retry`, and as id the seq behind which the stream begins. A comment breaks 15 s "
    "of silence. What ends without sse.end or sse.fault was lost, or the service shuts down, whose `retry` "
    "says when to come back: with Last-Event-ID; who asks while it shuts down gets that alone. As NDJSON a "
    "message is a line, and an empty line breaks the silence."
)


def build_document() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    events = {name: PAYLOADS[name] for name in PAYLOADS if name in RUN_TYPES}
    controls = {control.type: control for control in CONTROLS}
    payloads: dict[str, type[Any]] = {**events, **controls}
    _, schemas = msgspec.json.schema_components(
        [*payloads.values(), Ended], ref_template="#/components/schemas/{name}"
    )
    messages = {
        name: {"name": name, "payload": _envelope(name, payload, numbered=name in events)}
        for name, payload in payloads.items()
    } | {name: {"name": name, **message} for name, message in HTTP_ONLY.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tailrace",
            "version": VERSION,
            "description": "The stream of a run: one JSON object per WebSocket text frame, NDJSON line, or "
            "data field of a server-sent event. /schema/openapi.json describes it over HTTP, and all else.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "run": {
                "address": ADDRESS,
                "parameters": {"runId": {"description": f"Matches {ID.pattern}"}},
                "description": FORMS,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": _parameters("query"),
                        "headers": _parameters("header"),
                        "bindingVersion": "0.1.0",
                    }
                },
                "x-close-codes": {
                    str(code): {"when": when, "client": client}
                    for code, (when, client) in CLOSE_CODES.items()
                },
            }
        },
        "operations": {
            "stream": {
                "action": "send",
                "channel": {"$ref": "#/channels/run"},
                "summary": "Send a run's events from the first, or behind a seq, then live, to its end.",
                "messages": [{"$ref": f"#/channels/run/messages/{name}"} for name in messages],
            }
        },
        "components": {"schemas": {**schemas, "Problem": PROBLEM}, "messages": messages},
    }


def _envelope(name: str, payload: type[Any], *, numbered: bool) -> dict[str, Any]:
    """Return the schema of a message; the events' additions to the published three keys are numbered."""
    properties: dict[str, Any] = {
        "runId": {"type": "string"},
        "type": {"const": name},
        "payload": {"$ref": f"#/components/schemas/{payload.__name__}"},
    }
    if numbered:
        properties["seq"] = {"type": "integer", "minimum": 0, "description": "Its place, without a gap."}
        properties["timestamp"] = {"type": "string", "format": "date-time"}
    return {"type": "object", "required": list(properties), "properties": properties}


def _parameters(where: str) -> Schema:
    """Return the schema of the stream's parameters of one kind; of a query there are no others."""
    parameters = [each for each in STREAM if each.where == where]
    return {
        "type": "object",
        **({"additionalProperties": False} if where == "query" else {}),
        "properties": {each.name: {**each.schema, "description": each.text} for each in parameters},
    }


DOCUMENT = build_document()


@get("/schema/asyncapi.json", opt=needs(PUBLIC))
async def document() -> Response[bytes]:
    """Return the AsyncAPI document."""
    return answer(DOCUMENT)
