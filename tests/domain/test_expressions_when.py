"""``when``: what is true, what people may write, what is refused and where."""

import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.conditions import ROUND_VISITS_MAX, VISITS_MAX, Effort
from service.domain.expressions import BadExpression, ExpressionTooMuch, compile_condition

ROOT = {
    "count": 5,
    "text": "5",
    "status": "ok",
    "yes": True,
    "no": False,
    "zero": 0,
    "one": 1,
    "empty": "",
    "nothing": None,
    "none": [],
    "object": {},
    "my-var": "x",
    "other": "ok",
    "items": [{"k": 1, "ok": True}, {"k": 2, "ok": False}],
    "true-ish": {"true": 1, "2nd": 2, "3": 3},
    "steps": {"fetch-user": {"output": {"done": False, "n": 1.5}}},
    "secrets": {"KEY": "s"},
    "quote": 'a"b`c\\d',
}


def holds(text):
    return compile_condition(text).holds(ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "count > 3",
        "{{ count > 3 }}",
        "  {{count>3}} ",
        "count == 5.0 && count != 4",
        "-1 < count && 5e0 <= count",
        "zero == -0",
        "status == 'ok'",
        'status == "ok"',
        'status == `"ok"`',
        'my-var != "ok"',
        '"my-var" == "x"',
        "yes == true && no == false && nothing == null && absent == null",
        "!no && !nothing && !empty && !none && !object && !absent",
        "!steps.fetch-user.output.done",
        '!steps."fetch-user".output.done',
        "steps.fetch-user.output.n == 1.5",
        "no || yes",
        "!(count < 3)",
        "items[0].k == 1 && items[-1].k == 2",
        "items[?k > 1]",
        "items[?k > 1 && !ok] | [0].k == 2",
        "items[1:] && items[::2] && items[*].k && items[].k",
        "true-ish.true == 1",
        "true-ish.2nd == 2",
        "true-ish.3 == 3",
        "{true: count}.true == 5",
        '[count, status] == `[5, "ok"]`',
        "status == other",
        'quote == "a\\"b`c\\\\d"',
        "one != true && zero != false",
        "zero",
        "0",
        "'x'",
        "yes\n&&\tyes",
        True,
    ],
)  # fmt: skip
def test_holds(text):
    assert holds(text) is True


@pytest.mark.parametrize(
    "text",
    [
        "absent", "nothing", "empty", "none", "object", "no", "null", "false", "''", "`[]`", False,
        "count > 5", "absent > 3", "text > 3", "3 < text", "count == text", "items[?k > 2]", "!zero", "!'x'",
        "items[7]", "status.x", "status == 'o' || no", 'status == "other"', "items[?k > 'a']",
    ],
)  # fmt: skip
def test_does_not_hold(text):
    assert holds(text) is False


def test_a_number_against_text_has_no_order_and_is_null_within_an_expression_too():
    assert holds("(text > 3) == null")
    assert holds("!(text > 3)")


def test_double_quotes_are_text_only_on_the_right_of_a_comparison():
    root = {"a": {"b": "x"}, "x": 1, "name": "a"}
    assert compile_condition('name == "a"').holds(root)
    assert compile_condition('"name" == "a"').holds(root)
    assert compile_condition("'x' == \"a\".b").holds(root)
    assert compile_condition('"a".b == "x"').holds(root)


def test_secrets_cannot_be_seen_by_any_way():
    for text in ("secrets", "secrets.KEY", "@ | secrets.KEY", "@.secrets", "*.KEY", '"secrets"."KEY"'):
        assert not compile_condition(text).holds({"secrets": {"KEY": "s"}})


def test_the_names_that_are_looked_up_are_known():
    condition = compile_condition(
        "steps.a.output.x[0].y == 1 || !b.c || [d, items[?steps.q]] || {k: @.e} | f"
    )
    assert condition.lookups == (("steps", "a", "output"), ("b", "c"), ("d",), ("items",), ("e",))


@pytest.mark.parametrize("text", [
    "@", "@ | steps.a.output", "@.[steps.a.output]", "@.{x: steps.a}.x", "*", "*.a.output", "[*]", "[]", "[0]", "[?a]",
    "{x: @} | x.steps.a", "b == 1 && !(@ | steps.a)", "[a, @][1].steps.b", "a == @.*", "[@]",
])  # fmt: skip
def test_it_is_known_where_anything_may_be_looked_up(text):
    assert compile_condition(text).anywhere


@pytest.mark.parametrize("text", [
    "a", "steps.a.output.x[0]", "@.steps.a.output", "(@).steps.a", "a[*].b", "a.*.b", "a[?@.b == `1`].c", "a[].b", "a[1:3]", "a | @",
    "a | *", "a.[b, c]", "[a, b.c] | [0]", "{x: a}.x", "!a || b == 1 && c != `[1]`", "true", "a.b | [?@]",
])  # fmt: skip
def test_it_is_known_where_only_names_are_looked_up(text):
    condition = compile_condition(text)
    assert not condition.anywhere
    seen = []

    class Watched(dict):
        def get(self, key, default=None):
            seen.append(key)
            return super().get(key, default)

    steps = {"a": {"output": {"x": [1]}}}
    condition.holds(root := Watched(a={"b": [1]}, b={"c": 2}, c=3, steps=steps))
    condition.holds(Watched())
    assert set(root) > set(seen) - {None}
    assert {name for name in seen if name in {"a", "b", "c", "steps"}} <= {
        path[0] for path in condition.lookups
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: the condition is empty"),
        ("  ", "column 1: the condition is empty"),
        ("{{ }}", "column 4: the condition is empty"),
        ("{{}}", "column 3: the condition is empty"),
        ("{{ count", "column 1: braces go around the whole condition or nowhere"),
        ("{{a}} == {{b}}", "column 4: braces go around the whole condition, once"),
        ("length(items) > 1", "column 1: functions cannot be called here: length()"),
        ("yes && contains (items, 1)", "column 8: functions cannot be called here: contains()"),
        ("count = 3", "column 7: '=' is no comparison; write '=='"),
        ("yes & no", "column 5: '&' has no meaning here; write '&&'"),
        ("count >", "column 8: not a JMESPath expression: unexpected the end"),
        ("{{ count > }}", "column 12: not a JMESPath expression: unexpected the end"),
        ("(count > 3", "column 11: not a JMESPath expression: unexpected the end"),
        ("count > 3) ", "column 10: not a JMESPath expression: unexpected ')'"),
        ("yes and no", "column 5: not a JMESPath expression: unexpected 'and'"),
        ("  {{  yes no }}", "column 11: not a JMESPath expression: unexpected 'no'"),
        ("a 'b", "column 3: the quote is never closed"),
        ("x == 007", "column 6: 007 is not a JSON value"),
        ("x == `nope`", "column 6: `nope` is not a JSON value"),
        ("x == 3-2", "column 6: '3-2' is neither a name nor a number"),
        ("a # b", "column 3: unexpected '#'"),
        ("a é", "column 3: unexpected 'é'"),
        ("items[::0]", "column 6: the step of a slice cannot be 0"),
        ('x == "\\q"', "column 6: the quoted text is not a valid JSON string"),
        ("!" * 200 + "a", "column 201: a condition has at most 200 tokens"),
        ("[" + "a," * 9 + "a]", "column 19: a condition has at most 8 commas"),
        ("x == `" + "[" * 33 + "]" * 33 + "`", "column 6: the literal is too deep"),
        ("x" * 2001, "column 2001: a condition has at most 2000 characters"),
    ],
)
def test_a_bad_condition_is_told_with_its_column(text, message):
    with pytest.raises(BadExpression) as raised:
        compile_condition(text)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "text", ["!" * 199 + "yes", "(" * 99 + "yes" + ")" * 99, "a" + ".a" * 99, "yes" + "||yes" * 99]
)
def test_the_deepest_condition_is_no_trouble(text):
    compile_condition(text).holds(ROOT)


PIECES = st.sampled_from(
    [*"()[]{}.,:@*!&|<>=`'\"\\ -", "[?", "[]", "==", "&&", "||", "{{", "}}", "a", "a-b", "count", "items", "steps",
     "true", "null", "3", "-1", "1.5", "'x'", '"x"', "`[1]`", "[0]", "[::2]", "é", "\ud800", "\n"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map("".join))
@settings(derandomize=True, database=None, deadline=None, max_examples=1500)
def test_any_text_is_a_condition_or_is_told_why_not(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            outcome = compile_condition(text).holds(ROOT)
        except BadExpression as error:
            outcome = error
    assert isinstance(outcome, bool) or 1 <= outcome.column <= len(text) + 1


@given(st.text(max_size=30))
@settings(derandomize=True, database=None, deadline=None, max_examples=500)
def test_any_text_can_be_compared_with(text):
    condition = compile_condition(f"value == {json.dumps(text, ensure_ascii=False)}")
    assert condition.holds({"value": text})
    assert not condition.holds({"value": text + "x"})


ONES = {"a": [1] * 32_000}


@pytest.mark.parametrize(
    "text",
    [
        "a[?" + " || ".join(["@ == `2`"] * 40) + "]",
        "[a,a][]|[@,@][]|[@,@][]|[?@==`1` && @==`1`]",
        "[a,a,a][]|[@,@][]",
        "a[*].[@,@,@]",
        "[a,a][]|[0:60000]|[1:]",
    ],
)
def test_what_takes_too_long_is_given_up(text):
    condition, effort = compile_condition(text), Effort()
    with pytest.raises(ExpressionTooMuch, match="more than 100000 steps"):
        condition.holds(ONES, effort)
    assert effort.left < 0
    assert condition.holds({"a": [1, 2]}) in {True, False}


def test_an_effort_is_shared():
    condition, effort = compile_condition("a[?@ == `2`]"), Effort()
    assert not condition.holds(ONES, effort)
    assert 0 < ROUND_VISITS_MAX - effort.left <= VISITS_MAX
    left = effort.left
    compile_condition("a[0] == `1`").holds(ONES, effort)
    assert left - 10 < effort.left < left


@pytest.mark.parametrize(
    "make",
    [
        lambda: [[] for _ in range(21_000)],
        lambda: {f"{n:04x}": {} for n in range(6_000)},
        lambda: [json.loads("[" * 100 + "]" * 100) for _ in range(300)],
        lambda: json.loads("[" * 100 + "]" * 100),
    ],
)
def test_large_values_are_compared_a_few_times_only(make):
    root, effort = {"a": make(), "b": make()}, Effort()
    assert compile_condition("a == b && !(a != b)").holds(root, effort)
    assert ROUND_VISITS_MAX - effort.left < VISITS_MAX / 10
    often = "[@]" + "|[@,@][]" * 8 + "|[?" + " || ".join(["a != b"] * 30) + "]"
    with pytest.raises(ExpressionTooMuch):
        compile_condition(often).holds(root)
