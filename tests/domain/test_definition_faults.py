"""What is wrong with a definition: every fault at once, each where it is."""

import pytest

from service.domain.definition import FAULTS_MAX
from tests.domain.definitions import faults_of, parse, resolve, step


def in_step(**members):
    return faults_of({"steps": {"a": step(**members)}})


def test_every_fault_at_once():
    raw = {
        "nmae": 1,
        "variables": {"env": 1},
        "timeout": "soon",
        "steps": [
            step(id="a", type="prob", dependsOn=["b", "zz"], config={"do": "{{ q"}, retry={"maxAttempts": 0}),
            step(id="b", dependsOn="c", timeout=-1),
            step(id="c", dependsOn=["a"], when="len(x)", output={"v": "a..b"}, config={"nope": 1}),
            step(id="a", config={"do": "{{steps.gone.output}}"}),
            7,
        ],
    }
    assert sorted(faults_of(raw)) == [
        ("/nmae", "unknown key 'nmae'; did you mean 'name'?"),
        ("/steps/0/config/do", "column 1: the braces are never closed"),
        ("/steps/0/dependsOn/0", "the steps depend on each other in a cycle: a → b → c → a"),
        ("/steps/0/dependsOn/1", "there is no step 'zz'"),
        ("/steps/0/retry/maxAttempts", "must be a whole number from 1 to 1000"),
        ("/steps/0/type", "unknown type 'prob'; there are pause, probe"),
        ("/steps/1/timeout", "must not be negative"),
        ("/steps/2/config/nope", "unknown"),
        ("/steps/2/output/v", "column 3: expected a name, found '.'"),
        ("/steps/2/when", "column 1: functions cannot be called here: len()"),
        ("/steps/3/config/do", "column 1: there is no step 'gone'"),
        ("/steps/3/id", "another step has the id 'a'"),
        ("/steps/4", "a step is an object, not a number"),
        ("/timeout", 'must be a number with a unit: "500ms", "30s", "5m", "1h" or "1d"'),
        ("/variables/env", "a variable cannot be called 'env': expressions use that name already"),
    ]


@pytest.mark.parametrize(
    ("raw", "pointer", "message"),
    [
        (None, "", "a definition is an object, not null"),
        ([], "", "a definition is an object, not a list"),
        ({}, "", "steps are missing"),
        ({"steps": None}, "/steps", "steps are missing"),
        ({"steps": "a"}, "/steps", "must be an object or a list of steps, not a string"),
        ({"steps": {}}, "/steps", "must be 1 to 1000 steps, not 0"),
        ({"steps": [step(id=str(n)) for n in range(1001)]}, "/steps", "must be 1 to 1000 steps, not 1001"),
        ({"steps": {"a": step()}, "variables": []}, "/variables", "must be an object, not a list"),
        ({"steps": {"a": step()}, "variables": {"x": "y" * 65_535}}, "/variables/x", "is 65537 bytes of JSON; a variable has at most 65536"),
        ({"steps": {"a": step()}, "onError": "stop"}, "/onError", "must be 'abort' or 'continue'"),
        ({"steps": {"a": step()}, "version": True}, "/version", "must be a string of at most 256 characters"),
        ({"steps": {"a": step()}, "name": "n" * 257}, "/name", "must be a string of at most 256 characters"),
        ({"steps": {"a": step()}, "timeout": 0}, "/timeout", "must be at least 1 ms"),
        ({"steps": {"a": step()}, "on_error": "abort"}, "/on_error", "unknown key 'on_error'; did you mean 'onError'?"),
        ({"steps": {"a": step(id="b")}}, "/steps/a/id", "must be 'a', its key among the steps, or be left out"),
        ({"steps": {"a": step(id=1)}}, "/steps/a/id", "must be 'a', its key among the steps, or be left out"),
        ({"steps": {"a b": step()}}, "/steps/a b", "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": {"a/b~": step()}}, "/steps/a~1b~0", "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": {"": step()}}, "/steps/", "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": {"é": step()}}, "/steps/é", "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": {"x" * 129: step()}}, "/steps/" + "x" * 129, "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": [step()]}, "/steps/0", "the step has no id"),
        ({"steps": [step(id=5)]}, "/steps/0/id", "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": [step(id="a\n")]}, "/steps/0/id", "an id is 1 to 128 letters, digits, '_' or '-'"),
        ({"steps": {"a": None}}, "/steps/a", "a step is an object, not null"),
        ({"steps": {"a": {}}}, "/steps/a", "type is missing; there are pause, probe"),
        ({"steps": {"a": {"type": None}}}, "/steps/a/type", "type is missing; there are pause, probe"),
        ({"steps": {"a": {"type": ["x"]}}}, "/steps/a/type", "must be a string; there are pause, probe"),
    ],
)  # fmt: skip
def test_a_fault_of_the_definition(raw, pointer, message):
    assert faults_of(raw) == [(pointer, message)]
    resolve(raw, pointer)


@pytest.mark.parametrize(
    ("members", "pointer", "message"),
    [
        ({"depends_on": []}, "depends_on", "unknown key 'depends_on'; did you mean 'dependsOn'?"),
        ({"x" * 100: 1}, "x" * 100, f"unknown key '{'x' * 64}…'"),
        ({"name": 7}, "name", "must be a string of at most 256 characters"),
        ({"config": []}, "config", "must be an object, not a list"),
        ({"config": {"do": 1}}, "config/do", "no text"),
        ({"config": {"do": "{{x"}}, "config/do", "column 1: the braces are never closed"),
        ({"dependsOn": 1}, "dependsOn", "must be a list of step ids, not a number"),
        ({"dependsOn": [["a"]]}, "dependsOn/0", "must be a step id, not a list"),
        ({"dependsOn": "a"}, "dependsOn", "a step cannot depend on itself"),
        ({"dependsOn": ["b"]}, "dependsOn/0", "there is no step 'b'"),
        ({"timeout": True}, "timeout", 'must be a number of milliseconds or a text like "30s"'),
        ({"timeout": -5}, "timeout", "must not be negative"),
        ({"timeout": 1.5}, "timeout", "must be a whole number of milliseconds"),
        ({"timeout": "400d"}, "timeout", "must be at most 366 days"),
        ({"retry": 3}, "retry", "must be an object, not a number"),
        ({"retry": {"attempts": 3}}, "retry/attempts", "unknown key 'attempts'; did you mean 'maxAttempts'?"),
        ({"retry": {"maxAttempts": 1001}}, "retry/maxAttempts", "must be a whole number from 1 to 1000"),
        ({"retry": {"maxAttempts": True}}, "retry/maxAttempts", "must be a whole number from 1 to 1000"),
        ({"retry": {"maxAttempts": 1.5}}, "retry/maxAttempts", "must be a whole number from 1 to 1000"),
        ({"retry": {"interval": "1x"}}, "retry/interval", 'must be a number with a unit: "500ms", "30s", "5m", "1h" or "1d"'),
        ({"retry": {"interval": 2000, "maxInterval": "1s"}}, "retry/maxInterval", "must not be below the interval, 2000 ms"),
        ({"retry": {"backoff": 0.5}}, "retry/backoff", "must be a factor from 1 to 10, 'fixed' (1) or 'exponential' (2)"),
        ({"retry": {"backoff": True}}, "retry/backoff", "must be a factor from 1 to 10, 'fixed' (1) or 'exponential' (2)"),
        ({"retry": {"backoff": "linear"}}, "retry/backoff", "must be a factor from 1 to 10, 'fixed' (1) or 'exponential' (2)"),
        ({"onError": "ignore"}, "onError", "must be 'abort' or 'continue'"),
        ({"onError": ["abort"]}, "onError", "must be 'abort' or 'continue'"),
        ({"onInterrupt": "again"}, "onInterrupt", "must be 'retry' or 'fail'"),
        ({"when": 3}, "when", "column 1: must be a condition: a string, true or false"),
        ({"when": "a ="}, "when", "column 3: '=' is no comparison; write '=='"),
        ({"output": ["x"]}, "output", "must be an object, not a list"),
        ({"output": {"x": 1}}, "output/x", "must be the path of a value, not a number"),
        ({"outputs": {"x": 1}}, "outputs/x", "must be the name of a variable, not a number"),
        ({"output": {"x": "a["}}, "output/x", "column 2: expected a number in brackets, like [0]"),
        ({"outputs": {"a[": "x"}}, "outputs/a[", "column 2: expected a number in brackets, like [0]"),
        ({"output": {"secrets": "a"}}, "output/secrets", "a variable cannot be called 'secrets': expressions use that name already"),
        ({"outputs": {"a": "steps"}}, "outputs/a", "a variable cannot be called 'steps': expressions use that name already"),
        ({"output": {"": "a"}}, "output/", "a variable's name has 1 to 128 characters"),
        ({"outputs": {"a": "x", "b": "x"}}, "outputs/b", "'x' is set twice"),
        ({"output": {"x": "a"}, "outputs": {"b": "x"}}, "outputs/b", "'x' is set twice"),
        ({"when": "secrets.KEY == 'x'"}, "when", "secrets.KEY: secrets can be used in config only"),
        ({"config": {"do": "{{secrets}}"}}, "config/do", "column 1: say which: secrets.NAME"),
        ({"config": {"do": "{{steps}}"}}, "config/do", "column 1: say which: steps.NAME"),
        ({"config": {"do": "x {{steps[0]}}"}}, "config/do", "column 3: expected a name, not a number"),
        ({"config": {"do": "x {{steps.b.output}}"}}, "config/do", "column 3: there is no step 'b'"),
        ({"config": {"do": "{{steps.a.output}}"}}, "config/do", "column 1: a step cannot see its own output"),
        ({"when": "!steps.b.output.x"}, "when", "steps.b.output.x: there is no step 'b'"),
    ],
)  # fmt: skip
def test_a_fault_of_a_step(members, pointer, message):
    assert in_step(**members) == [(f"/steps/a/{pointer}", message)]
    resolve({"steps": {"a": step(**members)}}, f"/steps/a/{pointer}")


@pytest.mark.parametrize(
    ("raw", "pointer", "message"),
    [
        ([1] * 100_000, "", "is 200001 bytes of JSON; at most 196608 are kept"),
        ({"a": 2**64}, "/a", "is a number that does not fit into 64 bits"),
        ({"a": [float("nan")]}, "/a/0", "is not a number that JSON has"),
        ({"a": {"b": "\ud800"}}, "/a/b", "is not valid text"),
        ({"a": {"\ud800": 1}}, "/a", "has a key that is not valid text"),
        ({"a": {1, 2}}, "/a", "is not a JSON value"),
        ("\udfff", "", "is not valid text"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_it_is_read(raw, pointer, message):
    assert faults_of(raw) == [(pointer, message)]


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_and_never_a_recursion():
    raw = {"steps": {"a": step(config={"with": nested(60)})}}
    assert parse(raw).steps["a"].config.render({}) == {"with": nested(60)}
    assert [message for _, message in faults_of({"steps": {"a": step(config={"with": nested(61)})}})] == [
        "is nested deeper than 64 levels"
    ]
    ((pointer, message),) = faults_of(nested(200_000))
    assert (pointer, message) == ("/0" * 64, "is nested deeper than 64 levels")


def test_the_list_of_faults_is_bounded_and_counts_the_others():
    faults = faults_of({**{f"k{n}": 1 for n in range(700)}, "steps": {"a": step()}})
    assert len(faults) == FAULTS_MAX + 1
    assert faults[-1] == ("", "and 200 more faults")
