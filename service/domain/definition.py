"""A workflow's definition, read from what a caller sent: every fault at once, each with its place.

Tolerant in form, because what a former release recorded must be read for ever; strict in meaning.
"""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

from msgspec import Struct

from service.domain.fields import Fields, child, is_number, kind_of, quoted
from service.domain.graph import Dependency, check_dependencies, dependents
from service.domain.references import check_references, steps_read
from service.domain.step_spec import (
    DESCRIPTION_CHARS_MAX,
    NAME_CHARS_MAX,
    ON_ERROR,
    Kind,
    OnError,
    ParsedStep,
    Retry,
    StepSpec,
    parse_step,
)
from service.domain.variables import check_variables
from service.domain.wellformed import check_json
from service.errors import Fault, InvalidInput

__all__ = ["Definition", "Kind", "Retry", "StepSpec", "parse_definition"]

FAULTS_MAX = 500  # that are told; a last one counts the others

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_KEYS = ("name", "version", "description", "variables", "steps", "onError", "timeout")


class Definition(Struct, frozen=True):
    """A sound definition: steps in the order they were written, and for each those that wait for it.

    ``reads``: the steps whose outputs each looks up by name. ``readers``: how many look up that of each.
    ``searchers``: the steps that may look up any other's.
    """

    name: str | None
    version: str | None
    variables: dict[str, Any]
    steps: dict[str, StepSpec]
    timeout_ms: int | None
    dependents: dict[str, tuple[str, ...]]
    reads: dict[str, frozenset[str]]
    readers: Counter[str]
    searchers: frozenset[str]


def parse_definition(
    raw: object, *, kinds: Mapping[str, Kind], steps_max: int | None = None, pointer: str = ""
) -> Definition:
    """Return the definition that ``raw`` is, at most ``steps_max`` steps (None: any number) of ``kinds``.

    ``pointer`` is where ``raw`` stood in what the caller sent. Raises InvalidInput with every fault.
    """
    faults = check_json(raw, pointer)
    if not faults and not isinstance(raw, dict):
        faults.append(Fault(pointer, f"a definition is an object, not {kind_of(raw)}"))
    if faults:
        raise _invalid(faults)
    fields = Fields(cast(dict[str, Any], raw), pointer, faults)
    fields.refuse_unknown(_KEYS)
    fields.text("description", chars_max=DESCRIPTION_CHARS_MAX)
    if fields.raw.get("variables") is not None:
        faults += check_variables(fields.raw["variables"], fields.at("variables"))
    parsed = _parse_steps(fields, kinds, steps_max)
    dependencies = {step_id: each.dependencies for step_id, each in parsed.items()}
    _check_across(parsed, dependencies, faults)
    reads = {step_id: steps_read(each.references) for step_id, each in parsed.items()}
    definition = Definition(
        name=fields.text("name", chars_max=NAME_CHARS_MAX),
        version=_version(fields),
        variables=fields.raw.get("variables") or {},
        steps={step_id: each.spec for step_id, each in parsed.items()},
        timeout_ms=fields.duration("timeout", least_ms=1),
        dependents={} if faults else dependents(dependencies),
        reads=reads,
        readers=Counter(chain.from_iterable(reads.values())),
        searchers=frozenset(
            step_id for step_id, each in parsed.items() if each.spec.when and each.spec.when.anywhere
        ),
    )
    if faults:
        raise _invalid(faults)
    return definition


def _parse_steps(fields: Fields, kinds: Mapping[str, Kind], steps_max: int | None) -> dict[str, ParsedStep]:
    on_error = cast(OnError, fields.choice("onError", ON_ERROR) or "abort")
    raw = fields.raw.get("steps")
    if raw is None:
        fields.fault("steps" if "steps" in fields.raw else None, "steps are missing")
        return {}
    if not isinstance(raw, dict | list):
        fields.fault("steps", f"must be an object or a list of steps, not {kind_of(raw)}")
        return {}
    if not raw or (steps_max is not None and len(raw) > steps_max):
        allowed = "at least 1 step" if steps_max is None else f"1 to {steps_max} steps"
        fields.fault("steps", f"must be {allowed}, not {len(raw)}")
        return {}
    parsed: dict[str, ParsedStep] = {}
    for key, step in raw.items() if isinstance(raw, dict) else enumerate(raw):
        at = child(fields.at("steps"), key)
        if not isinstance(step, dict):
            fields.faults.append(Fault(at, f"a step is an object, not {kind_of(step)}"))
            continue
        step_id = _step_id(key, Fields(step, at, fields.faults), parsed)
        parsed[step_id] = parse_step(step_id, step, at, fields.faults, kinds=kinds, on_error=on_error)
    return parsed


def _step_id(key: str | int, step: Fields, taken: Mapping[str, object]) -> str:
    """Return the id of a step from its key in a map, else from itself; for a faulty one, a made-up one."""
    given = step.raw.get("id")
    place = None if given is None else "id"
    if isinstance(key, str):
        if given is not None and given != key:
            step.fault("id", f"must be {quoted(key)}, its key among the steps, or be left out")
        given, place = key, None
    if given is None:
        step.fault(None, "the step has no id")
    elif not isinstance(given, str) or not _ID.fullmatch(given):
        step.fault(place, "an id is 1 to 128 letters, digits, '_' or '-'")
    elif given in taken:
        step.fault(place, f"another step has the id {quoted(given)}")
    # A step without a good id of its own still has its other faults told; no id can hold a slash.
    return given if isinstance(given, str) and given not in taken else step.pointer


def _check_across(
    parsed: Mapping[str, ParsedStep], dependencies: Mapping[str, list[Dependency]], faults: list[Fault]
) -> None:
    ancestry = check_dependencies(dependencies, faults)
    references = [each for step in parsed.values() for each in step.references]
    faults += check_references(references, parsed, ancestry)


def _version(fields: Fields) -> str | None:
    version = fields.raw.get("version")
    if is_number(version):
        return str(version)
    return fields.text("version", chars_max=NAME_CHARS_MAX)


def _invalid(faults: list[Fault]) -> InvalidInput:
    told = faults[:FAULTS_MAX]
    if len(faults) > FAULTS_MAX:
        told.append(Fault("", f"and {len(faults) - FAULTS_MAX} more faults"))
    return InvalidInput(told, detail="The definition is not valid.")
