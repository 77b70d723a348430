"""docs/definitions.md names every key, error code and limit that the code knows, and its examples are accepted."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain import (
    conditions,
    decide,
    definition,
    durations,
    expressions,
    literals,
    run,
    step_spec,
    wellformed,
)
from service.domain.definition import Retry, parse_definition
from service.domain.events import MESSAGE_BYTES_MAX, RUN_INPUT_BYTES_MAX, VALUE_BYTES_MAX
from service.domain.retry import JITTER
from service.ops.settings import SETTINGS
from service.steps import command, guard, http, lines, output, request
from service.steps.config import Config
from service.steps.registry import registry
from tests.domain.page import PAGE, examples, keys, rows

ROOT = Path(__file__).parents[2]
STEPS = registry(commands=frozenset({"*"}), output_bytes_max=1000)
MIB = 1024 * 1024
UNITS = {"KiB": 1024, "MiB": MIB, "days": 24 * 3_600_000}

# How an error is made whose code is handed on: it was given where the value came from.
HANDED_ON = {"code", "error.code", "failure.code", "state.error.code", "ended.status"}
LIMITS = {
    "a definition, with the variables of a run": RUN_INPUT_BYTES_MAX,
    "a variable": VALUE_BYTES_MAX,
    "the recorded output of a step": VALUE_BYTES_MAX,
    "a message of a log line": MESSAGE_BYTES_MAX,
    "the body of an http answer": http.BODY_BYTES_MAX,
    "redirects": http.REDIRECTS_MAX,
    "a URL": request.URL_CHARS_MAX,
    "the value of a header": request.HEADER_BYTES_MAX,
    "the arguments of a command": command.ARGUMENTS_BYTES_MAX,
    "stdout and stderr in a document, each": output.KEPT_BYTES_MAX,
    "what templates insert into one config": expressions.INSERTED_CHARS_MAX,
    "a condition": conditions.CHARS_MAX,
    "nesting of a definition": wellformed.JSON_DEPTH_MAX,
    "attempts of a step": step_spec.ATTEMPTS_MAX,
    "a duration": durations.DURATION_MS_MAX,
    "interruptions of a step other than `wait` that are tried again": decide.INTERRUPTIONS_MAX,
    "faults that a refusal tells": definition.FAULTS_MAX,
}


def keys_of(step, monkeypatch) -> list[str]:
    known: list[str] = []
    monkeypatch.setattr(Config, "refuse_unknown", lambda _, keys: known.extend(keys))
    step.check({}, "")
    return known


def codes(source: str) -> Iterator[str]:
    """Yield the codes of the errors that ``source`` can make."""
    constants = {each: getattr(run, each) for each in ("CANCELLED", "TOO_MANY_EVENTS", "INTERNAL_ERROR")}
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ClassDef)
            and ast.unparse(node.bases[0] if node.bases else node) == "ExpressionFailed"
        ):
            yield from re.findall(r"^code = '(\w+)'$", "\n".join(map(ast.unparse, node.body)), re.MULTILINE)
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in {
            "Error",
            "failed",
            "_failed",
            "Failed",
        }:
            continue
        match node.args[0]:
            case ast.Constant(value=code):
                yield code
            case ast.Name(id=name) if name in constants:
                yield constants[name]
            case other:
                assert ast.unparse(other) in HANDED_ON, ast.unparse(node)


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_is_accepted(example):
    parsed = parse_definition(example.definition, kinds=STEPS, steps_max=1000)
    assert "-".join(parsed.steps) == example.name


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("A definition", definition._KEYS),
        ("A step", step_spec._STEP_KEYS),
        ("Retry", step_spec._RETRY_KEYS),
    ],
)
def test_every_key_has_its_row(heading, known):
    assert sorted(keys(heading)) == sorted(known)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_key_of_a_step_type_has_its_row(step, monkeypatch):
    known = keys_of(step, monkeypatch)
    assert len(known) == len(set(known)) > 0
    assert sorted(keys(step.type)) == sorted(known)


def test_every_code_that_steps_and_engine_give_has_its_row():
    sources = [
        path for room in ("steps", "engine", "domain") for path in (ROOT / "service" / room).glob("*.py")
    ]
    known = {code for path in sources for code in codes(path.read_text())}
    assert {"exit_code", "missing_value", "cancelled", "connect", "run_timeout", "internal_error"} <= known
    told = keys("Why a step fails")
    assert sorted(told) == sorted(known)
    assert {cells[1] for cells in rows("Why a step fails")} == {"any", "the run"} | {"http", "command"}


def test_every_limit_is_the_code_s():
    told = {}
    for what, most, *_ in rows("Limits"):
        number = re.match(r"([\d,]+)(?: (\w+))?", most)
        if number is not None:
            told[what] = int(number[1].replace(",", "")) * UNITS.get(number[2], 1)
    assert {what: told.get(what) for what in LIMITS} == LIMITS
    settings = {setting.env: int(setting.default) for setting in SETTINGS if f"`{setting.env}`" in told}
    assert len(settings) == len({what for what in told if what.startswith("`TAILRACE_")}) == 8
    assert {f"`{name}`": most for name, most in settings.items()}.items() <= told.items()


def test_what_is_said_in_passing_is_the_code_s():
    assert Retry() == Retry(max_attempts=1, interval_ms=1_000, backoff=1.0, max_interval_ms=300_000)
    assert (JITTER, step_spec.BACKOFF_MAX, step_spec.BACKOFF_WORDS) == (
        0.1,
        10,
        {"fixed": 1, "exponential": 2},
    )
    assert (http.TIMEOUT_MS, guard.TERM_GRACE_S, guard.LINGER_S, lines.LINE_BYTES_MAX) == (
        120_000,
        2,
        0.5,
        MIB,
    )
    assert (
        f"{conditions.CHARS_MAX:,} characters, {literals.TOKENS_MAX} tokens and {literals.COMMAS_MAX} commas"
        in PAGE
    )
    assert f"{step_spec.DESCRIPTION_CHARS_MAX:,}" in PAGE
    assert f"at most {step_spec.NAME_CHARS_MAX} characters" in PAGE
    for word in (*command.INHERITED_ENV, "JMESPath", r"\{{", "`secrets.NAME`", *request.METHODS):
        assert word in PAGE, word
