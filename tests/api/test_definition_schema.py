"""The schemas of a definition say what the code reads: its keys, words and bounds; nothing good is left out."""

import copy
from typing import Any

import pytest
from hypothesis import given

from service.api.definition_schema import CONFIGS, SCHEMAS
from service.api.openapi import DOCUMENT, PAGE
from service.domain import definition, step_spec
from service.domain.definition import parse_definition
from service.errors import InvalidInput
from service.steps import command, request
from service.steps.config import Config
from tests.api.json_schema import fits, target
from tests.domain.page import examples
from tests.domain.test_definition_any import REAL, SETTINGS, near_definitions
from tests.steps.test_check import BAD, GOOD

WORKFLOW = DOCUMENT["paths"]["/api/v2/workflows"]["post"]["requestBody"]["content"]["application/json"][
    "schema"
]
STEP = {"type": "wait", "config": {"duration": 1}}
WHOLE: dict[str, Any] = {
    "name": "n", "version": 2, "description": "d", "variables": {"x": [1]}, "onError": "continue", "timeout": "1h",
    "steps": {
        "a": {
            "id": "a", "name": "n", "description": "d", "type": "http", "when": "x", "dependsOn": [], "timeout": 5,
            "config": {"url": "http://x.y", "method": "post", "headers": {"a": 1}, "query": {"a": [1, "{{x}}"]},
                       "body": [1], "timeout": "{{x}}", "expectStatus": ["2xx", 404]},
            "output": {"y": "response.status"}, "outputs": {"response.body": "z"}, "onError": "abort",
            "retry": {"maxAttempts": 3, "interval": "1s", "backoff": "fixed", "maxInterval": 5_000}, "onInterrupt": "fail",
        },
        "b": {"type": "command", "dependsOn": "a", "config": {"cmd": ["a", 1], "args": [None], "env": {"A": 1}, "cwd": "/",
              "stdin": {"a": "{{x}}"}, "timeout": 1, "expectExit": 3}},
    },
}  # fmt: skip


def valid(raw: Any) -> bool:
    return fits(raw, {"$ref": "#/components/schemas/Definition"}, DOCUMENT)


def accepted(raw: Any) -> bool:
    try:
        parse_definition(raw, kinds=REAL, steps_max=1000)
    except InvalidInput:
        return False
    return True


def properties(name: str) -> list[str]:
    assert SCHEMAS[name]["additionalProperties"] is False
    return sorted(SCHEMAS[name]["properties"])


def enum(schema: dict[str, Any]) -> set[Any]:
    found = (
        schema["enum"]
        if "enum" in schema
        else next(each["enum"] for each in schema["anyOf"] if "enum" in each)
    )
    return set(found) - {None}


def test_their_keys_are_the_code_s(monkeypatch):
    assert properties("Definition") == sorted(definition._KEYS)
    assert properties("Step") == sorted(step_spec._STEP_KEYS)
    assert properties("Retry") == sorted(step_spec._RETRY_KEYS)
    assert sorted(CONFIGS) == sorted(REAL)
    for type_, name in CONFIGS.items():
        known: list[str] = []
        monkeypatch.setattr(Config, "refuse_unknown", lambda _, keys, to=known: to.extend(keys))
        REAL[type_].check({}, "")
        assert properties(name) == sorted(known), type_


def test_their_words_and_bounds_are_the_code_s():
    step, http = SCHEMAS["Step"]["properties"], SCHEMAS["HttpConfig"]["properties"]
    assert enum(step["type"]) == set(REAL)
    assert (
        enum(step["onError"])
        == enum(SCHEMAS["Definition"]["properties"]["onError"])
        == set(step_spec.ON_ERROR)
    )
    assert enum(step["onInterrupt"]) == {"retry", "fail"}
    assert enum(SCHEMAS["Retry"]["properties"]["backoff"]) == set(step_spec.BACKOFF_WORDS)
    assert enum(http["method"]) == {*request.METHODS, *map(str.lower, request.METHODS)}
    assert http["url"]["anyOf"][0]["maxLength"] == request.URL_CHARS_MAX
    assert SCHEMAS["CommandConfig"]["properties"]["cwd"]["anyOf"][0]["maxLength"] == command.PATH_CHARS_MAX
    assert SCHEMAS["Definition"]["required"] == ["steps"]
    assert SCHEMAS["Step"]["required"] == ["type", "config"]


def test_the_document_and_its_page_have_them():
    assert SCHEMAS.items() <= DOCUMENT["components"]["schemas"].items()
    assert {"$ref": "#/components/schemas/Definition"} in WORKFLOW["oneOf"]
    page = PAGE.decode()
    for name, schema in SCHEMAS.items():
        assert f"<details id='{name}'>" in page
        assert f"<a href='#{name}'>#/components/schemas/{name}</a>" in page
        assert [key for key in schema.get("properties", ()) if f"&quot;{key}&quot;: " not in page] == []


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_examples_are_valid(example):
    assert valid(example.definition)
    assert fits({"workflowId": "w", "definition": example.definition}, WORKFLOW, DOCUMENT)


@pytest.mark.parametrize(("type_", "config"), GOOD)
def test_a_good_config_is_valid(type_, config):
    assert fits(config, target(f"#/components/schemas/{CONFIGS[type_]}", DOCUMENT), DOCUMENT)
    assert valid({"steps": {"a": {"type": type_, "config": config}}})


def test_most_of_what_is_refused_is_not_valid():
    let_through = [
        config for type_, config, _ in BAD if valid({"steps": {"a": {"type": type_, "config": config}}})
    ]
    assert len(let_through) < len(BAD) / 2


def faulty() -> list[tuple[str, Any]]:
    """Faults that a schema can see, by the place in WHOLE where they are put."""
    return [
        ("x", 1), ("steps", {}), ("steps", []), ("steps", None), ("steps", [STEP]), ("steps", {"a b": STEP}), ("name", 1),
        ("version", []), ("onError", "retry"), ("timeout", 0), ("timeout", "soon"), ("variables", {"env": 1}),
        ("steps/a/x", 1), ("steps/a/type", "ftp"), ("steps/a/type", "wait"), ("steps/a/config", None), ("steps/a/id", "a b"),
        ("steps/a/when", 1), ("steps/a/dependsOn", ["b", "b"]), ("steps/a/retry", {"attempts": 1}),
        ("steps/a/retry/maxAttempts", 0), ("steps/a/retry/maxAttempts", 1.5), ("steps/a/retry/backoff", "linear"),
        ("steps/a/retry/interval", -1), ("steps/a/output", {"steps": "x"}), ("steps/a/outputs", {"x": "steps"}),
        ("steps/a/onInterrupt", "again"), ("steps/a/config/Url", "x"), ("steps/a/config/method", "TRACE"),
        ("steps/a/config/expectStatus", 99), ("steps/a/config/expectStatus", ["6xx"]), ("steps/a/config/headers", []), ("steps/a/config/headers", {"a b": 1}),
        ("steps/a/config/query", {"a": {"b": 1}}), ("steps/b/config/cmd", []), ("steps/b/config/args", "x"),
        ("steps/b/config/env", {"A=B": 1}), ("steps/b/config/expectExit", 256), ("steps/b/config/cwd", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), faulty())
def test_a_fault_is_not_valid(place, value):
    assert valid(WHOLE)
    assert accepted(WHOLE)
    raw = copy.deepcopy(WHOLE)
    *way, last = place.split("/")
    at = raw
    for key in way:
        at = at[key]
    at[last] = value
    assert not accepted(raw)
    assert not valid(raw)


def nulls(raw: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(raw, dict):
        return []
    return [each for key in raw for each in ((*way, key), *nulls(raw[key], (*way, key)))]


def test_null_is_valid_wherever_it_is_accepted():
    tried = 0
    for *way, last in nulls(WHOLE):
        raw = copy.deepcopy(WHOLE)
        at = raw
        for key in way:
            at = at[key]
        at[last] = None
        if accepted(raw):
            tried += 1
            assert valid(raw), (way, last)
    assert tried > 30


@given(near_definitions)
@SETTINGS
def test_nothing_that_is_accepted_is_left_out(raw):
    if accepted(raw):
        assert valid(raw)
