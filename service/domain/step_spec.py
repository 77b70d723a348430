"""One step of a definition: its members read and checked, the other steps not yet known."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

from msgspec import Struct

from service.domain.expressions import (
    BadExpression,
    Condition,
    Path,
    Template,
    compile_condition,
    compile_template,
    parse_path,
)
from service.domain.fields import Fields, child, is_number, kind_of, quoted
from service.domain.graph import Dependency
from service.domain.references import Reference
from service.domain.variables import name_fault
from service.errors import Fault

NAME_CHARS_MAX = 256
DESCRIPTION_CHARS_MAX = 16_384
ATTEMPTS_MAX = 1_000
BACKOFF_MAX = 10
BACKOFF_WORDS = {"fixed": 1.0, "exponential": 2.0}

OnError = Literal["abort", "continue"]
ON_ERROR = ("abort", "continue")
_STEP_KEYS = (
    "id", "name", "description", "type", "config", "dependsOn", "output", "outputs", "when", "retry",
    "timeout", "onError", "onInterrupt",
)  # fmt: skip
_RETRY_KEYS = ("maxAttempts", "interval", "backoff", "maxInterval")


class Kind(Protocol):
    """What a definition must know of a step type."""

    @property
    def holds_slot(self) -> bool:
        """Whether an attempt counts against the parallel bounds."""
        ...

    def check(self, config: Mapping[str, Any], pointer: str) -> list[Fault]:
        """Return every fault of a config whose templates are still open."""
        ...

    def repeatable(self, config: Mapping[str, Any]) -> bool:
        """Say whether an interrupted attempt may be repeated without being asked to."""
        ...


class Retry(Struct, frozen=True):
    """How often a step is tried in all, and the wait in between: it grows by ``backoff`` each time."""

    max_attempts: int = 1
    interval_ms: int = 1_000
    backoff: float = 1.0
    max_interval_ms: int = 300_000


class StepSpec(Struct, frozen=True):
    """A step as the definition wants it. ``output`` pairs a variable with its path in the step's document."""

    id: str
    name: str
    type: str
    config: Template
    depends_on: tuple[str, ...] = ()
    output: tuple[tuple[str, Path], ...] = ()
    when: Condition | None = None
    retry: Retry = Retry()
    timeout_ms: int | None = None
    on_error: OnError = "abort"
    repeatable: bool = False
    retry_interrupted: bool = False
    holds_slot: bool = True


class ParsedStep(Struct, frozen=True):
    """A step, and what can only be checked once all steps are known."""

    spec: StepSpec
    dependencies: list[Dependency]
    references: list[Reference]


def parse_step(
    step_id: str,
    raw: dict[str, Any],
    pointer: str,
    faults: list[Fault],
    *,
    kinds: Mapping[str, Kind],
    on_error: OnError,
) -> ParsedStep:
    """Return the step that ``raw`` describes; only good for use when nothing was added to ``faults``."""
    fields = Fields(raw, pointer, faults)
    fields.refuse_unknown(_STEP_KEYS)
    fields.text("description", chars_max=DESCRIPTION_CHARS_MAX)
    kind = _kind(fields, kinds)
    config = fields.object("config")
    template, references = _config(fields, step_id, config)
    if kind is not None and isinstance(raw.get("config"), dict | None):
        faults += kind.check(config, fields.at("config"))
    when = _when(fields)
    if when is not None:
        references += [
            Reference(step_id, fields.at("when"), f"{'.'.join(names)}: ", names, secret=False)
            for names in when.lookups
        ]
    dependencies = _dependencies(fields)
    on_interrupt = fields.choice("onInterrupt", ("retry", "fail"))
    spec = StepSpec(
        id=step_id,
        name=fields.text("name", chars_max=NAME_CHARS_MAX) or step_id,
        type=str(raw.get("type")),
        config=template,
        depends_on=tuple(each.step_id for each in dependencies),
        output=_output(fields),
        when=when,
        retry=_retry(fields),
        timeout_ms=fields.duration("timeout", least_ms=1),
        on_error=cast(OnError, fields.choice("onError", ON_ERROR) or on_error),
        repeatable=on_interrupt != "fail" and not faults and kind is not None and kind.repeatable(config),
        retry_interrupted=on_interrupt == "retry",
        holds_slot=kind is None or kind.holds_slot,
    )
    return ParsedStep(spec, dependencies, references)


def _kind(fields: Fields, kinds: Mapping[str, Kind]) -> Kind | None:
    named = fields.raw.get("type")
    known = ", ".join(sorted(kinds))
    if named is None:
        fields.fault("type" if "type" in fields.raw else None, f"type is missing; there are {known}")
    elif not isinstance(named, str):
        fields.fault("type", f"must be a string; there are {known}")
    elif named not in kinds:
        fields.fault("type", f"unknown type {quoted(named)}; there are {known}")
    else:
        return kinds[named]
    return None


def _config(fields: Fields, step_id: str, config: dict[str, Any]) -> tuple[Template, list[Reference]]:
    template, lookups = compile_template(config, fields.at("config"), fields.faults)
    references = [
        Reference(step_id, each.pointer, f"column {each.column}: ", each.path.segments, secret=True)
        for each in lookups
    ]
    return template, references


def _when(fields: Fields) -> Condition | None:
    raw = fields.raw.get("when")
    if raw is None:
        return None
    try:
        return compile_condition(raw)
    except BadExpression as error:
        fields.fault("when", str(error))
        return None


def _dependencies(fields: Fields) -> list[Dependency]:
    raw = fields.raw.get("dependsOn")
    at = fields.at("dependsOn")
    if raw is None:
        return []
    if isinstance(raw, str):
        return [Dependency(raw, at)]
    if not isinstance(raw, list):
        fields.fault("dependsOn", f"must be a list of step ids, not {kind_of(raw)}")
        return []
    found = []
    for n, each in enumerate(raw):
        if isinstance(each, str):
            found.append(Dependency(each, child(at, n)))
        else:
            fields.faults.append(Fault(child(at, n), f"must be a step id, not {kind_of(each)}"))
    return found


def _output(fields: Fields) -> tuple[tuple[str, Path], ...]:
    """Return what both spellings say: ``output {variable: path}`` and ``outputs {path: variable}``."""
    found: dict[str, Path] = {}
    for spelling in ("output", "outputs"):
        for key, value in fields.object(spelling).items():
            at = child(fields.at(spelling), key)
            if not isinstance(value, str):
                what = "the path of a value" if spelling == "output" else "the name of a variable"
                fields.faults.append(Fault(at, f"must be {what}, not {kind_of(value)}"))
                continue
            name, path = (key, value) if spelling == "output" else (value, key)
            message = name_fault(name) or (f"{quoted(name)} is set twice" if name in found else None)
            if message is not None:
                fields.faults.append(Fault(at, message))
            try:
                found[name] = parse_path(path)
            except BadExpression as error:
                fields.faults.append(Fault(at, str(error)))
    return tuple(found.items())


def _retry(fields: Fields) -> Retry:
    retry = Fields(fields.object("retry"), fields.at("retry"), fields.faults)
    retry.refuse_unknown(_RETRY_KEYS)
    interval_ms = retry.duration("interval", least_ms=0)
    max_interval_ms = retry.duration("maxInterval", least_ms=0)
    default = Retry()
    interval_ms = default.interval_ms if interval_ms is None else interval_ms
    if max_interval_ms is None:
        max_interval_ms = max(interval_ms, default.max_interval_ms)
    elif max_interval_ms < interval_ms:
        retry.fault("maxInterval", f"must not be below the interval, {interval_ms} ms")
    return Retry(
        max_attempts=retry.whole("maxAttempts", least=1, most=ATTEMPTS_MAX) or default.max_attempts,
        interval_ms=interval_ms,
        backoff=_backoff(retry),
        max_interval_ms=max_interval_ms,
    )


def _backoff(retry: Fields) -> float:
    raw = retry.raw.get("backoff")
    if raw is None:
        return Retry().backoff
    if isinstance(raw, str) and raw in BACKOFF_WORDS:
        return BACKOFF_WORDS[raw]
    if is_number(raw) and 1 <= raw <= BACKOFF_MAX:
        return float(raw)
    retry.fault("backoff", f"must be a factor from 1 to {BACKOFF_MAX}, 'fixed' (1) or 'exponential' (2)")
    return Retry().backoff
