"""Any JSON at all is a definition or is refused, with pointers that lead somewhere; nothing else happens."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.definition import Definition, parse_definition
from service.domain.events import encode_value
from service.errors import InvalidInput
from service.steps.registry import registry
from tests.domain.definitions import KINDS, resolve

REAL = registry(commands=frozenset({"*"}), output_bytes_max=1_000_000)
SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=500)

WORDS = ["a", "b", "c/d", "e~", "", "probe", "pause", "http", "command", "wait", "abort", "continue", "retry", "fail",
         "30s", "-1s", "fixed", "{{a}}", "{{steps.a.output}}", "{{steps.b}}", "{{secrets.K}}", "{{", r"\{{", "a > 1",
         "steps.a.output.x", "f(x)", "http://x/{{a}}", "GET"]  # fmt: skip
KEYS = ["id", "name", "type", "config", "dependsOn", "output", "outputs", "when", "retry", "timeout", "onError",
        "onInterrupt", "variables", "steps", "version", "maxAttempts", "interval", "backoff", "maxInterval", "url", "method",
        "path", "baseUrl", "headers", "body", "command", "cmd", "args", "duration", "a", "b", "do", "steps.a"]  # fmt: skip

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=6)
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=25,
)
ids = st.sampled_from(["a", "b", "c", "d"])
references = st.sampled_from(["{{steps.a.output}}", "{{steps.b.output.x}} {{v}}", "plain", "{{secrets.K}}"])
good_steps = st.fixed_dictionaries(
    {"type": st.sampled_from(["probe", "pause", "http", "command", "wait"])},
    optional={
        "id": ids,
        "config": st.fixed_dictionaries(
            {}, optional={"do": references, "url": references, "duration": leaves}
        )
        | anything,
        "dependsOn": st.lists(ids, max_size=3) | ids,
        "when": st.sampled_from(["steps.a.output.x > 1", "true", "v == 'x'"]) | leaves,
        "output": st.dictionaries(ids, st.sampled_from(["x.y", "z[0]"]), max_size=2) | anything,
        "retry": anything,
        "timeout": leaves,
        "onError": leaves,
    },
)
near_definitions = st.fixed_dictionaries(
    {"steps": st.dictionaries(ids, good_steps, max_size=4) | st.lists(good_steps | anything, max_size=4)},
    optional={
        "variables": st.dictionaries(ids, leaves, max_size=2) | anything,
        "timeout": leaves,
        "onError": leaves,
    },
)


def check(raw, kinds):
    before = repr(raw)
    try:
        definition = parse_definition(raw, kinds=kinds, steps_max=3)
    except InvalidInput as error:
        check_refusal(raw, error.faults, kinds)
    else:
        assert isinstance(definition, Definition)
        again = msgspec.json.decode(encode_value(raw))
        assert parse_definition(again, kinds=kinds, steps_max=3) == definition
        assert order_exists(definition)
    assert repr(raw) == before


def check_refusal(raw, faults, kinds):
    assert faults
    msgspec.json.encode(faults)
    if kinds is KINDS:  # a real step type may point to the member that is missing
        for fault in faults:
            resolve(raw, fault.pointer)


def order_exists(definition):
    """Say whether steps that start when their dependencies are over all start."""
    over = set()
    while ready := [
        s.id for s in definition.steps.values() if s.id not in over and set(s.depends_on) <= over
    ]:
        over.update(ready)
    return over == set(definition.steps)


@given(anything)
@SETTINGS
def test_any_json(raw):
    check(raw, KINDS)


@given(near_definitions)
@SETTINGS
def test_any_near_definition(raw):
    check(raw, KINDS)


@given(near_definitions)
@SETTINGS
def test_any_near_definition_with_the_real_step_types(raw):
    check(raw, REAL)
