"""Templates and look-ups: what is inserted, what is missing, what is refused and where."""

import re
from string import ascii_letters, digits

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.expressions import (
    INSERTED_CHARS_MAX,
    MISSING,
    BadExpression,
    ExpressionTooMuch,
    MissingValue,
    as_text,
    compile_template,
    parse_path,
)

ROOT = {
    "name": "Ada",
    "count": 3,
    "ratio": 0.5,
    "yes": True,
    "nothing": None,
    "list": [1, {"a": "b"}],
    "my-var": "dashed",
    "sneaky": "{{name}} \\{{name}}",
    "é clair": "sweet",
    "1": "one",
    "steps": {"fetch-user": {"output": {"user": {"tags": ["x", "y"]}}}},
    "env": {"HOME": "/home"},
    "secrets": {"KEY": "s3cret"},
}
SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=300)


def compiled(value):
    faults = []
    template, lookups = compile_template(value, "/config", faults)
    assert faults == []
    return template, lookups


def render(value, root=ROOT):
    return compiled(value)[0].render(root)


def faults_of(value):
    faults = []
    compile_template(value, "/config", faults)
    return [(fault.pointer, fault.message) for fault in faults]


@pytest.mark.parametrize("name", ["name", "count", "ratio", "yes", "nothing", "list", "my-var", "1"])
def test_a_string_that_is_one_template_keeps_the_type(name):
    value = render("{{ NAME }}".replace("NAME", name))
    assert value == ROOT[name]
    assert type(value) is type(ROOT[name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {{name}}!", "Hello Ada!"),
        ("{{name}}{{count}}", "Ada3"),
        (" {{count}}", " 3"),
        ("{{count}} ", "3 "),
        ("n={{nothing}} y={{yes}} r={{ratio}}", "n=null y=true r=0.5"),
        ("l={{list}}", 'l=[1,{"a":"b"}]'),
        ("{{\tname\n}}.", "Ada."),
        ('{"id":{{count}}}', '{"id":3}'),
        ("{ {name}}", "{ {name}}"),
        ("a }} b", "a }} b"),
        ("{{steps.fetch-user.output.user.tags[1]}}", "y"),
        ("{{steps.fetch-user.output.user.tags[-2]}}", "x"),
        ('{{steps."fetch-user".output.user.tags[ 0 ]}}', "x"),
        ('{{"\\u00e9 clair"}}', "sweet"),
        ('{{ "é clair" }}', "sweet"),
        ("{{env.HOME}}/x", "/home/x"),
        ("", ""),
    ],
)
def test_text_around_templates(text, expected):
    assert render(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\{{name}}", "{{name}}"),
        (r"\\{{name}}", r"\Ada"),
        (r"\\\{{name}}", r"\{{name}}"),
        (r"C:\dir\{{name}}\{{", r"C:\dir{{name}}{{"),
        (r"a\\b \n {{name}}", r"a\\b \n Ada"),
        (r"\{{{{name}}", "{{Ada"),
    ],
)
def test_a_backslash_makes_the_braces_literal(text, expected):
    assert render(text) == expected


def test_a_backslash_makes_them_literal_in_a_config_without_any_look_up_too():
    config = {"args": [r"\{{name}}", {"a": r"\\\{{b}}"}], "n": 1}
    assert render(config) == {"args": ["{{name}}", {"a": r"\{{b}}"}], "n": 1}
    assert config["args"][0] == r"\{{name}}"


def test_inserted_text_is_never_expanded_again():
    assert render("{{sneaky}}") == ROOT["sneaky"]
    assert render("<{{sneaky}}>") == f"<{ROOT['sneaky']}>"


def test_configs_render_through_and_through_and_keep_what_has_no_template():
    config = {"a": [{"b": "{{count}}"}, 1, None], "c": {"d": "plain"}, "e": True}
    assert render(config) == {"a": [{"b": 3}, 1, None], "c": {"d": "plain"}, "e": True}
    assert config["a"][0]["b"] == "{{count}}"


@pytest.mark.parametrize(
    "path",
    [
        "absent",
        "name.x",
        "list[2]",
        "list[-3]",
        "list.a",
        "count[0]",
        "nothing.x",
        "steps.x.output",
        "name[0]",
    ],
)
def test_a_missing_value_is_told_with_its_path(path):
    for text in ("{{ %s }}", "in {{%s}} text"):
        with pytest.raises(MissingValue) as raised:
            render([text % path])
        assert raised.value.path == path


def test_null_is_not_missing():
    assert parse_path("nothing").find(ROOT) is None
    assert parse_path("nothing.deeper").find(ROOT) is MISSING


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{", "column 1: the braces are never closed"),
        ("ab {{name", "column 4: the braces are never closed"),
        ("{{name}} {{name", "column 10: the braces are never closed"),
        ("{{}}", "column 3: expected a name, found '}'"),
        ("x {{  }}", "column 7: expected a name, found '}'"),
        ("{{a..b}}", "column 5: expected a name, found '.'"),
        ("{{a.}}", "column 5: expected a name, found '}'"),
        ("{{a|upper}}", "column 4: expected }} after 'a', found '|'"),
        ("{{a b}}", "column 5: expected }} after 'a', found 'b'"),
        ("{{a[x]}}", "column 4: expected a number in brackets, like [0]"),
        ("{{a[0}}", "column 4: expected a number in brackets, like [0]"),
        ("{{[0]}}", "column 3: expected a name, found '['"),
        ('{{a."b}}', "column 5: the quote is never closed"),
        ('{{"\\q"}}', "column 3: the quoted text is not a valid JSON string"),
        ('{{"\\ud800"}}', "column 3: the quoted text is not a valid JSON string"),
        ("{{{name}}}", "column 3: expected a name, found '{'"),
        ("{{é}}", "column 3: expected a name, found 'é'"),
        ("{{a[99999999999]}}", "column 4: expected a number in brackets, like [0]"),
    ],
)
def test_a_bad_template_is_told_with_its_column(text, message):
    assert faults_of(text) == [("/config", message)]


def test_every_bad_string_is_told_with_its_pointer():
    assert [pointer for pointer, _ in faults_of({"a/b": ["{{", "ok", {"~": "{{.}}"}], "c": "{{x"})] == [
        "/config/a~1b/0",
        "/config/a~1b/2/~0",
        "/config/c",
    ]


def test_keys_are_not_expanded_and_say_so():
    assert faults_of({"{{name}}": 1}) == [("/config/{{name}}", "templates are not expanded in a key")]


def test_secrets_and_lookups_are_known_before_rendering():
    template, lookups = compiled({"h": ["Bearer {{secrets.KEY}}", "{{ name }}{{secrets.OTHER.x}}"]})
    assert template.secrets == {"KEY", "OTHER"}
    assert [(each.pointer, each.column, each.path.text) for each in lookups] == [
        ("/config/h/0", 8, "secrets.KEY"),
        ("/config/h/1", 1, "name"),
        ("/config/h/1", 11, "secrets.OTHER.x"),
    ]


@pytest.mark.parametrize("value", [["{{big}}"] * 33, "{{big}}" * 33, {"a": "{{big}}{{list}}"}])
def test_a_rendering_is_bounded(value):
    root = {"big": "x" * (INSERTED_CHARS_MAX // 32), "list": ["y" * INSERTED_CHARS_MAX]}
    with pytest.raises(ExpressionTooMuch):
        render(value, root)
    assert len(render("{{big}}" * 32, root)) == INSERTED_CHARS_MAX


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{{a}}", "column 1: a path stands here without braces"),
        ("a b", "column 2: unexpected ' ' after 'a'"),
        ("", "column 1: expected a name, found the end"),
        ("$.a", "column 1: expected a name, found '$'"),
        ("a[*].b", "column 2: expected a number in brackets, like [0]"),
    ],
)
def test_a_bad_output_path_is_told_with_its_column(path, message):
    with pytest.raises(BadExpression, match=f"^{re.escape(message)}$"):
        parse_path(path)


def test_an_output_path_may_have_space_around_it():
    assert parse_path("  my-var ").find(ROOT) == "dashed"


names = st.text(ascii_letters + digits + "_-", min_size=1, max_size=3)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("{}x\\", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


def places(document, path=()):
    yield path
    members = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in members:
        yield from places(value, (*path, key))


@given(st.dictionaries(names, documents, min_size=1, max_size=3), st.data())
@SETTINGS
def test_a_lookup_finds_what_jmespath_finds(document, data):
    path = data.draw(st.sampled_from([place for place in places(document) if place]))
    ours = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path)[1:]
    theirs = "".join(f"[{each}]" if isinstance(each, int) else f'."{each}"' for each in path)[1:]
    assert parse_path(ours).find(document) == jmespath.search(theirs, document)


@given(
    st.dictionaries(names, st.text("{}x\\ ", max_size=12), min_size=1),
    st.text("{}x\\ ", max_size=8).map(str.strip),
)
@SETTINGS
def test_whatever_is_inserted_stays_as_it_is(root, plain):
    name = next(iter(root))
    text = plain.replace("{", "(").replace("\\", "/")
    assert render(f"{text}{{{{{name}}}}}{text}", root) == text + root[name] + text


@given(st.text("{\\x} ", max_size=20))
@SETTINGS
def test_any_text_can_be_written(text):
    escaped = re.sub(r"(\\*)\{\{", lambda m: m[1] * 2 + r"\{{", text)
    # Braces left of a pair would move it: `{{{` escapes from the left, two at a time.
    assert render(escaped) == text


def test_as_text_is_compact_json_but_for_strings():
    assert [as_text(value) for value in ("é", 1.5, None, [1, {"a": "é"}])] == [
        "é",
        "1.5",
        "null",
        '[1,{"a":"é"}]',
    ]
