"""Which events a request asks for: checks of its parameters, and what passes them."""

import re
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from service.domain.events import PAYLOADS, STEP_TYPES, RunComplete, RunStart, StepLog
from service.log import Recorded

RUN_TYPES = frozenset({*STEP_TYPES, RunStart.type, RunComplete.type})
DEFAULT_TYPES = frozenset(STEP_TYPES)
LEVELS = ("debug", "info", "warn", "error")
WORKFLOWS_KNOWN_MAX = 10_000  # runs whose workflow one request remembers

PLACE = re.compile(r"[0-9]{1,15}")
_LAST = re.compile(r"-[1-9][0-9]{0,8}")

Passes = Callable[[Recorded], bool]


class After(Struct, frozen=True):
    """Where in a run to begin: behind ``seq``, or with the last ``count`` events that pass the filter."""

    seq: int = -1
    count: int | None = None


# Checks, as requests.read_query takes them


def as_after(text: str) -> After:
    """Return where in a run to begin."""
    if text == "tail":
        return After(count=0)
    if _LAST.fullmatch(text):
        return After(count=-int(text))
    return After(seq=as_place(text, "a seq, tail, or -n for the last n events"))


def as_run_types(text: str) -> frozenset[str]:
    """Return the types of a run's events: a list, or ``all``."""
    if text == "all":
        return RUN_TYPES
    if "all" in text.split(","):
        raise ValueError("holds 'all' among others; it stands alone")
    return _names(text, RUN_TYPES, "all, ")


def as_types(text: str) -> frozenset[str]:
    """Return types of events of any stream."""
    return _names(text, frozenset(PAYLOADS), "")


def as_cursor(text: str) -> int:
    """Return a place in the log."""
    return as_place(text, "a cursor or nextCursor of this list, unchanged")


def as_place(text: str, wanted: str) -> int:
    """Return a whole number that counts events."""
    if not PLACE.fullmatch(text):
        raise ValueError(f"must be {wanted}")
    return int(text)


def _names(text: str, known: frozenset[str], more: str) -> frozenset[str]:
    names = frozenset(text.split(","))
    if unknown := sorted(names - known):
        listed = ", ".join(repr(name[:64]) for name in unknown)
        raise ValueError(f"holds {listed}; known are {more}{', '.join(sorted(known))}")
    return names


# What passes


class _OfStep(Struct, rename="camel", gc=False):
    step_id: str | None = None
    level: str | None = None


class _StepEvent(Struct, gc=False):
    payload: _OfStep


class _Dated(Struct, gc=False):
    timestamp: str


_step_event = msgspec.json.Decoder(_StepEvent)  # it skips all but the two fields
_dated = msgspec.json.Decoder(_Dated)


class EventFilter(Struct, frozen=True):
    """Which events of a run are asked for: of ``types``, of one step, messages of at least ``level``.

    A run's header and seal are of no step. ``level`` is about step_log alone: all else passes.
    """

    types: frozenset[str] = DEFAULT_TYPES
    step_id: str | None = None
    level: str | None = None

    @property
    def everything(self) -> bool:
        """Tell whether it lets every event of a run pass."""
        return self.types >= RUN_TYPES and self.step_id is None and self.level is None

    @property
    def every_step_event(self) -> bool:
        """Tell whether it lets every event pass that is neither the run's header nor its seal."""
        return self.types >= DEFAULT_TYPES and self.step_id is None and self.level is None

    def passing(self, page: Sequence[Recorded]) -> Sequence[Recorded]:
        """Return what of ``page`` passes, in order."""
        if self.everything:
            return page
        types = self.types
        if self.step_id is None and self.level is None:
            return [event for event in page if event.type in types]
        return [event for event in page if self.passes(event)]

    def passes(self, event: Recorded) -> bool:
        """Tell whether ``event`` passes; its payload is looked into only if that decides."""
        if event.type not in self.types:
            return False
        at_least = self.level if event.type == StepLog.type else None
        if self.step_id is None and at_least is None:
            return True
        if event.type not in DEFAULT_TYPES:
            return False
        said = _step_event.decode(event.data).payload
        if self.step_id is not None and said.step_id != self.step_id:
            return False
        return at_least is None or said.level in LEVELS[LEVELS.index(at_least) :]


class AuditFilter(Struct, frozen=True):
    """Which events of the whole log are asked for; a field that is None asks for all.

    ``since`` (included) and ``until`` (not) are compared with the events' timestamps. Those are labels: the
    log's order is the order of writing, so where a clock was set back they go back, too.
    """

    types: frozenset[str] | None = None
    run_id: str | None = None
    workflow_id: str | None = None
    since: str | None = None
    until: str | None = None
    control: bool = False

    def passes(self, workflow_of: Callable[[str], str | None]) -> Passes:
        """Return what lets these events pass; ``workflow_of`` tells which workflow a run is of."""
        tests: list[Passes] = []
        if not self.control:
            tests.append(lambda event: event.stream.startswith("run/"))
        if (types := self.types) is not None:
            tests.append(lambda event: event.type in types)
        if (run_id := self.run_id) is not None:
            tests.append(lambda event: event.stream in {f"run/{run_id}", f"signal/{run_id}"})
        if self.workflow_id is not None:
            tests.append(_of_workflow(self.workflow_id, workflow_of))
        if self.since is not None or self.until is not None:
            since, until = self.since or "", self.until or "~"
            tests.append(lambda event: since <= _dated.decode(event.data).timestamp < until)
        return lambda event: all(test(event) for test in tests)


def _of_workflow(workflow_id: str, workflow_of: Callable[[str], str | None]) -> Passes:
    known: dict[str, bool] = {}  # by stream

    def passes(event: Recorded) -> bool:
        passing = known.get(event.stream)
        if passing is None:
            kind, _, name = event.stream.partition("/")
            passing = (name if kind == "workflow" else workflow_of(name)) == workflow_id
            if len(known) >= WORKFLOWS_KNOWN_MAX:
                known.clear()
            known[event.stream] = passing
        return passing

    return passes
