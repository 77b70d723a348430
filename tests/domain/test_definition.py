"""What a definition means: both spellings, the defaults, durations."""

import pytest

from service.domain.definition import Retry
from service.domain.durations import DURATION_MS_MAX, parse_duration
from service.domain.variables import check_variables
from tests.domain.definitions import faults_of, parse, step

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


def one(**members):
    return parse({"steps": {"a": step(**members)}}).steps["a"]


def test_the_guides_definition_with_the_real_step_types():
    from service.domain.definition import parse_definition
    from service.steps.registry import registry

    kinds = registry(commands=frozenset({"*"}), output_bytes_max=1_000_000)
    definition = parse_definition(GUIDE, kinds=kinds, steps_max=10)
    first, second = definition.steps.values()
    assert (definition.name, definition.variables) == ("Test Workflow", GUIDE["variables"])
    assert (first.id, first.name, first.type, first.repeatable) == ("step1", "Fetch User Data", "http", True)
    assert first.config.render({"apiUrl": "http://x"}) == {"url": "http://x", "method": "GET"}
    assert [(name, path.text) for name, path in first.output] == [("userId", "userId"), ("title", "title")]
    assert (second.depends_on, second.repeatable) == (("step1",), False)
    assert second.config.render({"userId": 7}) == {"command": "echo", "args": ["Processing user 7"]}
    assert definition.dependents == {"step1": ("step2",), "step2": ()}


def test_a_list_of_steps_is_the_same_as_a_map():
    as_map = {"steps": {"a": step(), "b": step(dependsOn="a"), "c": step(dependsOn=["a", "b"])}}
    as_list = {"steps": [{"id": key, **value} for key, value in as_map["steps"].items()]}
    assert parse(as_list) == parse(as_map)
    assert parse(as_map).dependents == {"a": ("b", "c"), "b": ("c",), "c": ()}


def test_what_is_not_said():
    definition = parse({"steps": {"a": step()}})
    spec = definition.steps["a"]
    assert (definition.name, definition.version, definition.variables, definition.timeout_ms) == (
        None,
        None,
        {},
        None,
    )
    assert (spec.name, spec.depends_on, spec.output, spec.when, spec.timeout_ms) == ("a", (), (), None, None)
    assert (spec.retry, spec.on_error, spec.repeatable, spec.retry_interrupted) == (
        Retry(),
        "abort",
        False,
        False,
    )
    assert spec.retry.max_attempts == 1
    assert spec.config.render({}) == {}


def test_null_is_the_same_as_not_said():
    nulls = dict.fromkeys(
        ("id", "name", "description", "config", "dependsOn", "output", "outputs", "when", "retry", "timeout",
         "onError", "onInterrupt")
    )  # fmt: skip
    top = dict.fromkeys(("name", "version", "description", "variables", "onError", "timeout"))
    assert parse({**top, "steps": {"a": step(**nulls)}}) == parse({"steps": {"a": step()}})


def test_both_spellings_of_the_output():
    plain, plural = one(output={"x": "a.b", "y": "c"}), one(outputs={"a.b": "x", "c": "y"})
    assert plain.output == plural.output
    assert [(name, path.segments) for name, path in plain.output] == [("x", ("a", "b")), ("y", ("c",))]
    assert [name for name, _ in one(output={"x": "a"}, outputs={"b": "y"}).output] == ["x", "y"]


def test_the_definitions_on_error_is_the_default_of_its_steps():
    steps = {"a": step(), "b": step(onError="abort")}
    assert [each.on_error for each in parse({"onError": "continue", "steps": steps}).steps.values()] == [
        "continue",
        "abort",
    ]


@pytest.mark.parametrize(
    ("members", "repeatable", "retry_interrupted"),
    [
        ({}, False, False),
        ({"config": {"again": True}}, True, False),
        ({"config": {"again": True}, "onInterrupt": "fail"}, False, False),
        ({"onInterrupt": "retry"}, False, True),
    ],
)
def test_what_happens_after_an_interruption(members, repeatable, retry_interrupted):
    assert (one(**members).repeatable, one(**members).retry_interrupted) == (repeatable, retry_interrupted)


def test_the_type_says_whether_a_step_holds_a_slot():
    assert one().holds_slot
    assert not one(type="pause").holds_slot


def test_retry_in_words_and_numbers():
    assert one(
        retry={"maxAttempts": 3, "interval": "2s", "backoff": "exponential", "maxInterval": "1m"}
    ).retry == Retry(3, 2_000, 2.0, 60_000)
    assert one(retry={"backoff": "fixed", "interval": 0}).retry == Retry(interval_ms=0)
    assert one(retry={"maxAttempts": 2.0, "backoff": 1.5}).retry == Retry(max_attempts=2, backoff=1.5)
    assert one(retry={"interval": "1h"}).retry.max_interval_ms == 3_600_000


@pytest.mark.parametrize("version", ["1.0.0", "2", 2, 1.5])
def test_a_version_may_be_a_number(version):
    assert parse({"version": version, "steps": {"a": step()}}).version == str(version)


def test_when_is_compiled_and_may_be_a_bare_bool():
    assert one(when="{{ x > 1 }}").when.holds({"x": 2})
    assert not one(when=False).when.holds({})


def test_templates_may_look_at_ancestors_near_and_far():
    definition = parse(
        {
            "steps": {
                "c": step(
                    dependsOn=["b"],
                    config={"do": "{{steps.a.output.x}}{{steps.b.output}}"},
                    when="steps.a.output",
                ),
                "b": step(dependsOn=["a"]),
                "a": step(config={"do": "{{secrets.KEY}}{{env.HOME}}"}),
            }
        }
    )
    assert definition.steps["a"].config.secrets == {"KEY"}
    assert list(definition.steps) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (1500, 1500), (2.0, 2), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000),
        ("1d", 86_400_000), ("1.5s", 1500), ("0.1s", 100), (" 30 s ", 30_000), ("250", 250),
        (DURATION_MS_MAX, DURATION_MS_MAX), ("366d", DURATION_MS_MAX),
    ],
)  # fmt: skip
def test_durations(value, expected):
    assert parse_duration(value) == expected
    if expected > 0:
        assert parse({"timeout": value, "steps": {"a": step()}}).timeout_ms == expected


@pytest.mark.parametrize(
    "value",
    [-1, -0.5, 1.5, True, False, float("nan"), float("inf"), DURATION_MS_MAX + 1, 10**400, "367d", "", "s", "-1s", "1 day",
     "1h30m", "1e3", "9" * 5000, "١s", [], {}, None],
)  # fmt: skip
def test_what_is_no_duration(value):
    with pytest.raises(ValueError, match="^must "):
        parse_duration(value)


def test_variables_of_a_request_are_checked_the_same_way():
    assert check_variables({"a": 1, "b": None}, "/variables") == []
    faults = check_variables({"steps": 1, "": 2, "big": "x" * 70_000}, "/variables")
    assert [fault.pointer for fault in faults] == ["/variables/steps", "/variables/", "/variables/big"]
    assert [fault.pointer for fault in check_variables([], "/variables")] == ["/variables"]


def test_pointers_begin_where_the_definition_stood():
    assert faults_of({"steps": {"a": {"type": "x"}}}, pointer="/definition") == [
        ("/definition/steps/a/type", "unknown type 'x'; there are pause, probe")
    ]
