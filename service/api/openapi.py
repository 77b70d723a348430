"""The OpenAPI 3.1 document: every route, the stream included, with its problems and headers."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Response, get

from service.api import requests
from service.api.credentials import COOKIE
from service.api.definition_schema import SCHEMAS
from service.api.health import VERSION
from service.api.operations import OPERATIONS, Operation
from service.api.parameters import Parameter
from service.api.problems import MEDIA_TYPE
from service.api.requests import answer
from service.api.rights import ANY, PUBLIC, needs
from service.api.schema_page import page_of
from service.api.web import page_headers

# What the gate, or trouble on our side, may answer to any request.
EVERYWHERE = {
    400: "Something in the request is wrong; ``errors`` lists every fault with its place.",
    403: "The Origin is not ours and not in TAILRACE_ORIGINS, or a right is missing (``right``).",
    408: "The body did not arrive in time.",
    413: "The body, or what it asks us to keep, is over a limit.",
    415: "The body is not application/json.",
    421: "The Host is not ours and not in TAILRACE_HOSTS.",
    500: "A fault of ours, or a damaged event (``stream`` and ``seq`` name it).",
    503: "Not now: shutting down, short of space, behind, or the log fails (``outcome``: what was stored).",
}
MEANINGS = {
    401: "No credential, or one that is worth nothing.",
    404: "There is no such workflow, run or address; or the run is somebody else's.",
    405: "Another method; ``Allow`` lists those that are possible.",
    406: "No offered media type is acceptable.",
    409: "It contradicts what is recorded.",
    429: "A limit is reached: of this run, user or address; ``Retry-After`` says when to ask again.",
}


def build_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of ``operations``."""
    operations = list(operations)
    types = {type_ for operation in operations for type_ in operation.types()}
    _, components = msgspec.json.schema_components(
        sorted(types, key=lambda type_: type_.__name__), ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tailrace",
            "version": VERSION,
            "description": "Runs workflows, keeps every event, and streams any run from its first event on.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**components, **SCHEMAS, "Problem": PROBLEM},
            "responses": {
                f"Problem{status}": _problem(status, text) for status, text in (EVERYWHERE | MEANINGS).items()
            },
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
        "security": [{name: []} for name in SECURITY],
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation),
    }
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", operation.path)]
    parameters += [_parameter(parameter) for parameter in operation.parameters]
    if operation.right == PUBLIC:
        described["security"] = []
    elif operation.right != ANY:
        described["description"] = f"Needs the right ``{operation.right}``."
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": operation.body}},
        }
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for answered in operation.answers:
        response: dict[str, Any] = {
            "description": answered.text,
            "headers": {
                name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *answered.headers)
            },
        }
        if answered.schemas:
            response["content"] = {
                media_type: {"schema": _schema(schema)} for media_type, schema in answered.schemas.items()
            }
        responses[str(answered.status)] = response
    stranger = () if operation.right == PUBLIC else (401,)
    for status in sorted({*EVERYWHERE, *operation.problems, *stranger, 405}):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
    return responses


def _schema(schema: type | dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema, dict):
        return schema
    return {"$ref": f"#/components/schemas/{schema.__name__}"}


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^{requests.ID.pattern}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.text,
        "schema": parameter.schema,
    }


def _problem(status: int, text: str) -> dict[str, Any]:
    names = {401: ("WWW-Authenticate",), 405: ("Allow",), 429: ("Retry-After",), 503: ("Retry-After",)}.get(
        status, ()
    )
    return {
        "description": text,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)},
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


PROBLEM = {
    "title": "Problem",
    "description": "RFC 9457; ``errors`` lists every fault: a JSON pointer into the body, /query/NAME or "
    "/headers/NAME, and what is wrong.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "message"],
                "properties": {"pointer": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
HEADERS = {
    "X-Request-Id": {"description": "Names this request in the diagnostics.", "schema": {"type": "string"}},
    "Location": {"description": "Where the new thing is read.", "schema": {"type": "string"}},
    "Allow": {"description": "The methods that are possible.", "schema": {"type": "string"}},
    "ETag": {"description": "Names these very bytes.", "schema": {"type": "string"}},
    "Set-Cookie": {"description": "The session's.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to say who one is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until another try makes sense.", "schema": {"type": "integer"}},
}

# Asked for only by a service that has keys, or an issuer of tokens.
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of tailrace keys, or a JWT."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "From POST /api/v2/session.",
    },
}

DOCUMENT = build_document(OPERATIONS)
PAGE = page_of(DOCUMENT)


@get("/schema/openapi.json", opt=needs(PUBLIC))
async def document() -> Response[bytes]:
    """Return the OpenAPI document."""
    return answer(DOCUMENT)


@get("/schema", opt=needs(PUBLIC))
async def page() -> Response[bytes]:
    """Return the document as a page to read: no script, nothing from elsewhere."""
    return Response(PAGE, media_type="text/html", headers=page_headers(PAGE))
