"""The AsyncAPI 3 document: the stream of a run, every message in it, and how it is closed."""

from typing import Any

import msgspec
from litestar import Response, get

from service.api.filters import RUN_TYPES
from service.api.health import VERSION
from service.api.parameters import STREAM
from service.api.requests import ID, answer
from service.api.rights import PUBLIC, needs
from service.api.stream_control import CONTROLS
from service.domain.events import PAYLOADS

ADDRESS = "/api/v2/workflows/runs/{runId}/stream"

# When a WebSocket is closed so, and what its client does then.
CLOSE_CODES = {
    1000: ("The run is over and all is sent; the reason is: run STATUS lastSeq=N.", "stop"),
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


def build_document() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    events = {name: PAYLOADS[name] for name in PAYLOADS if name in RUN_TYPES}
    controls = {control.type: control for control in CONTROLS}
    payloads: dict[str, type[Any]] = {**events, **controls}
    _, schemas = msgspec.json.schema_components(
        list(payloads.values()), ref_template="#/components/schemas/{name}"
    )
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
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in payloads},
                "bindings": {"ws": {"method": "GET", "query": _query(), "bindingVersion": "0.1.0"}},
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
                "messages": [{"$ref": f"#/channels/run/messages/{name}"} for name in payloads],
            }
        },
        "components": {
            "schemas": schemas,
            "messages": {
                name: {"name": name, "payload": _envelope(name, payload, numbered=name in events)}
                for name, payload in payloads.items()
            },
        },
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


def _query() -> dict[str, Any]:
    parameters = [each for each in STREAM if each.where == "query"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {each.name: {**each.schema, "description": each.text} for each in parameters},
    }


DOCUMENT = build_document()


@get("/schema/asyncapi.json", opt=needs(PUBLIC))
async def document() -> Response[bytes]:
    """Return the AsyncAPI document."""
    return answer(DOCUMENT)
