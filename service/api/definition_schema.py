"""Schemas of definitions, steps and their configs, for the API's own document.

Never narrower than what is accepted: what only parsing sees (references, cycles, the text of expressions)
is not said here. Step types are strangers to this room: a test holds what it says of them against them.
"""

from typing import Any

from service.domain.conditions import CHARS_MAX
from service.domain.durations import DURATION_MS_MAX
from service.domain.events import RUN_INPUT_BYTES_MAX, VALUE_BYTES_MAX
from service.domain.step_spec import (
    ATTEMPTS_MAX,
    BACKOFF_MAX,
    BACKOFF_WORDS,
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    ON_ERROR,
)
from service.domain.variables import NAME_CHARS_MAX as VARIABLE_CHARS_MAX
from service.domain.variables import RESERVED

Schema = dict[str, Any]

_ID = "^[A-Za-z0-9_-]{1,128}$"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_NAME: Schema = {"type": "string", "maxLength": NAME_CHARS_MAX}
_DESCRIPTION: Schema = {"type": "string", "maxLength": DESCRIPTION_CHARS_MAX}
_VARIABLE: Schema = {
    "type": "string", "minLength": 1, "maxLength": VARIABLE_CHARS_MAX, "not": {"enum": list(RESERVED)},
}  # fmt: skip
_PATH: Schema = {"type": "string", "minLength": 1}
_DURATION_TEXT: Schema = {
    "type": "string",
    "pattern": r"^\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*(ms|s|m|h|d)?\s*$",
    "examples": ["250ms", "30s", "5m", "1.5h", "1d"],
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    """Return ``schema``, or null, which counts as not given."""
    match schema:
        case {"type": str(type_)}:
            return {**schema, "type": [type_, "null"]}
        case {"type": [*types]}:
            return {**schema, "type": [*types, "null"]}
        case {"anyOf": choices}:
            return {**schema, "anyOf": [*choices, {"type": "null"}]}
        case {"enum": words}:
            return {**schema, "enum": [*words, None]}
        case {"$ref": _}:
            return {"anyOf": [schema, {"type": "null"}]}
    return schema  # takes anything


def _object(title: str, text: str, required: tuple[str, ...], /, **properties: Schema) -> Schema:
    return {
        "title": title,
        "description": text,
        "type": "object",
        **({"required": list(required)} if required else {}),
        "additionalProperties": False,
        "properties": {
            name: schema if name in required else _or_null(schema) for name, schema in properties.items()
        },
    }


def _config(title: str, text: str, needed: tuple[str, ...], /, **properties: Schema) -> Schema:
    """Return the schema of a config: one of the ``needed`` keys, and a template may stand for any value."""
    required = needed if len(needed) == 1 else ()
    schema = _object(title, text, required, **{name: _open(each) for name, each in properties.items()})
    return schema if required else {**schema, "anyOf": [{"required": [name]} for name in needed]}


def _open(schema: Schema) -> Schema:
    if not schema.keys() - {"description"}:
        return schema  # takes anything
    described = {"description": schema["description"]} if "description" in schema else {}
    closed = {key: value for key, value in schema.items() if key != "description"}
    choices = closed["anyOf"] if closed.keys() == {"anyOf"} else [closed]
    return {**described, "anyOf": [*choices, _ref("Template")]}


def _expected(number: Schema, text: str, description: str) -> Schema:
    one: list[Schema] = [number, {"type": "string", "pattern": text}]
    several: Schema = {"type": "array", "items": {"anyOf": [*one, _ref("Template")]}}
    return {"description": description, "anyOf": [*one, several]}


def _text(description: str, **more: Any) -> Schema:
    return {"description": description, "type": "string", **more}


def _any(description: str) -> Schema:
    return {"description": description}


DURATION: Schema = {
    "title": "Duration",
    "description": "Milliseconds, or a number with its unit; at most 366 days.",
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": DURATION_MS_MAX}, _DURATION_TEXT],
}
TIMEOUT: Schema = {
    "title": "Timeout",
    "description": "A duration of at least 1 ms.",
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": DURATION_MS_MAX}, _DURATION_TEXT],
}
TEMPLATE: Schema = {
    "title": "Template",
    "description": "Text with {{path}} in it: known once the attempt begins.",
    "type": "string",
    "pattern": r"\{\{",
}
HTTP_CONFIG = _config(
    "HttpConfig",
    "One request. Its document: the keys of a JSON body, and response {status, headers, body}.",
    ("url", "path"),
    url=_text("An http or https URL, or what comes behind baseUrl.", minLength=1, maxLength=16_384),
    path=_text("What comes behind baseUrl, or a whole URL; instead of url.", minLength=1, maxLength=16_384),
    baseUrl=_text("Joined with url or path by one /.", minLength=1, maxLength=16_384),
    method={
        "description": "In large or small letters.",
        "enum": [*_METHODS, *(method.lower() for method in _METHODS)],
        "default": "GET",
    },
    headers={
        "description": "What is no string is sent as JSON; null is left out.",
        "type": "object",
        "propertyNames": {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
    },
    query={
        "description": "Added to the URL's own; null is left out.",
        "type": "object",
        "additionalProperties": {
            "type": ["string", "number", "boolean", "null", "array"],
            "items": {"type": ["string", "number", "boolean", "null"]},
        },
    },
    json=_any("The body, as JSON."),
    body=_any("The body: a string as text, anything else as JSON. Not together with json."),
    timeout=_ref("Timeout"),
    expectStatus=_expected(
        {"type": "integer", "minimum": 100, "maximum": 599},
        "^[1-5]([0-9]{2}|[xX]{2})$",
        'Statuses that are a success: 204, "2xx", or a list of them. Default: below 400.',
    ),
)
COMMAND_CONFIG = _config(
    "CommandConfig",
    "A program with its arguments, never a shell. Its document: stdout, stderr, exitCode, and the keys of "
    "stdout if that is a JSON object.",
    ("command", "cmd"),
    command={
        "description": "The executable, or a list that begins with it and goes on with arguments.",
        "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1}],
    },
    cmd={
        "description": "The same as command; give one of them.",
        "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1}],
    },
    args={"description": "Further arguments; what is no string becomes JSON.", "type": "array"},
    env={
        "description": "Environment variables; null leaves one out.",
        "type": "object",
        "propertyNames": {"pattern": "^[^=\\u0000]+$"},
    },
    cwd=_text("The directory in which it runs.", minLength=1, maxLength=4_096),
    stdin=_any("What it reads: a string as it is, anything else as JSON."),
    timeout=_ref("Timeout"),
    expectExit=_expected(
        {"type": "integer", "minimum": 0, "maximum": 255},
        "^[0-9]{1,3}$",
        "Exit codes that are a success: a number, or a list of them. Default: 0.",
    ),
)
WAIT_CONFIG = _config(
    "WaitConfig",
    "Lets time pass, counted from the first attempt. Its document: waitedMs.",
    ("duration",),
    duration=_ref("Duration"),
)
CONFIGS = {"http": "HttpConfig", "command": "CommandConfig", "wait": "WaitConfig"}

RETRY = _object(
    "Retry",
    "How often a step is tried in all, and the wait in between. Up to a tenth is added to each wait.",
    (),
    maxAttempts={"type": "integer", "minimum": 1, "maximum": ATTEMPTS_MAX, "default": 1},
    interval={**_ref("Duration"), "description": "Before the second attempt. Default: 1 s."},
    backoff={
        "description": "By what the wait grows each further time.",
        "anyOf": [{"type": "number", "minimum": 1, "maximum": BACKOFF_MAX}, {"enum": list(BACKOFF_WORDS)}],
        "default": 1,
    },
    maxInterval={**_ref("Duration"), "description": "The longest wait. Default: 5 min, at least interval."},
)
STEP: Schema = {
    **_object(
        "Step",
        "Starts when those of its dependsOn have ended. In config, {{path}} stands for a value of the run.",
        ("type", "config"),
        id={"type": "string", "pattern": _ID},
        type={"enum": list(CONFIGS)},
        config={"type": "object"},
        dependsOn={
            "description": "Ids of steps, or one.",
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            ],
        },
        when={
            "description": "JMESPath without functions; if it does not hold, the step is skipped.",
            "type": ["string", "boolean"],
            "maxLength": CHARS_MAX,
        },
        output={
            "description": "{variable: path in the step's document}.",
            "type": "object",
            "propertyNames": _VARIABLE,
            "additionalProperties": _PATH,
        },
        outputs={
            "description": "{path in the step's document: variable}.",
            "type": "object",
            "propertyNames": _PATH,
            "additionalProperties": _VARIABLE,
        },
        retry=_ref("Retry"),
        timeout={**_ref("Timeout"), "description": "Of each attempt."},
        onError={"description": "Default: the definition's.", "enum": list(ON_ERROR)},
        onInterrupt={
            "description": "Of an attempt during which the service died. Default: by its nature.",
            "enum": ["retry", "fail"],
        },
        name=_NAME,
        description=_DESCRIPTION,
    ),
    "anyOf": [
        {"properties": {"type": {"const": type_}, "config": _ref(config)}}
        for type_, config in CONFIGS.items()
    ],
}
DEFINITION = _object(
    "Definition",
    f"A workflow; docs/definitions.md tells all of it. At most {RUN_INPUT_BYTES_MAX} bytes together with a "
    "run's variables. A key whose value is null counts as not given.",
    ("steps",),
    steps={
        "description": "By id, or a list of steps with their ids.",
        "anyOf": [
            {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": _ID},
                "additionalProperties": _ref("Step"),
            },
            {"type": "array", "minItems": 1, "items": {"allOf": [_ref("Step"), {"required": ["id"]}]}},
        ],
    },
    variables={
        "description": f"What a run begins with; at most {VALUE_BYTES_MAX} bytes each.",
        "type": "object",
        "propertyNames": _VARIABLE,
    },
    onError={
        "description": "Of steps that do not say it themselves.",
        "enum": list(ON_ERROR),
        "default": "abort",
    },
    timeout={**_ref("Timeout"), "description": "Of the run, once it has left the queue."},
    name=_NAME,
    version={"type": ["string", "number"], "maxLength": NAME_CHARS_MAX},
    description=_DESCRIPTION,
)

SCHEMAS: dict[str, Schema] = {
    schema["title"]: schema
    for schema in (
        DEFINITION, STEP, RETRY, HTTP_CONFIG, COMMAND_CONFIG, WAIT_CONFIG, TEMPLATE, DURATION, TIMEOUT,
    )
}  # fmt: skip
