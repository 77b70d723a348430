"""Which step waits for which: faults of the dependencies, and who comes before whom."""

from collections.abc import Collection, Mapping, Sequence, Sized
from graphlib import CycleError, TopologicalSorter

from msgspec import Struct

from service.domain.fields import near, quoted
from service.errors import Fault

CYCLES_MAX = 10  # told one by one, none sharing a step with another
PATH_STEPS_MAX = 50
ID_CHARS_MAX = 128


class Dependency(Struct, frozen=True):
    """One entry of a step's ``dependsOn``, and its place."""

    step_id: str
    pointer: str


def check_dependencies(
    dependencies: Mapping[str, Sequence[Dependency]], faults: list[Fault]
) -> "Ancestry | None":
    """Return who comes before whom; unknown, repeated and own steps and cycles are added to ``faults``.

    None when there may be more cycles than are told.
    """
    places: dict[str, dict[str, str]] = {step_id: {} for step_id in dependencies}
    faulty: set[str] = set()
    for step_id, entries in dependencies.items():
        for entry in entries:
            message = _entry_fault(step_id, entry.step_id, places, faults)
            if message is None:
                places[step_id][entry.step_id] = entry.pointer
            else:
                faults.append(Fault(entry.pointer, message))
            if entry.step_id not in places:
                faulty.add(step_id)
    for _ in range(CYCLES_MAX):
        cycle = _find_cycle(places)
        if not cycle:
            return Ancestry(places, faulty)
        path = _path(cycle)
        faults.append(Fault(places[cycle[0]][cycle[1]], f"the steps depend on each other in a cycle: {path}"))
        faulty.update(cycle)
        for step_id in cycle:
            places[step_id] = {}
    return None


def _entry_fault(
    step_id: str, wanted: str, places: Mapping[str, Mapping[str, str]], faults: Sized
) -> str | None:
    if wanted == step_id:
        return "a step cannot depend on itself"
    if wanted not in places:
        return f"there is no step {quoted(wanted)}{near(wanted, places, faults)}"
    return f"{quoted(wanted)} is there already" if wanted in places[step_id] else None


def _find_cycle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """Return the steps of a cycle, each depending on the next one, from the one that was written first."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib lists them in the order in which they would run, the first one again at the end.
        cycle: list[str] = error.args[1][:0:-1]
    else:
        return []
    order = {step_id: n for n, step_id in enumerate(graph)}
    first = cycle.index(min(cycle, key=order.__getitem__))
    return [*cycle[first:], *cycle[:first]]


def _path(cycle: list[str]) -> str:
    told = cycle if len(cycle) <= PATH_STEPS_MAX else [*cycle[:PATH_STEPS_MAX], "…"]
    return " → ".join([*(each[:ID_CHARS_MAX] for each in told), cycle[0][:ID_CHARS_MAX]])


class Ancestry:
    """Who comes before whom, whatever the order in which steps finish."""

    def __init__(self, graph: Mapping[str, Collection[str]], faulty: Collection[str] = ()) -> None:
        """Take a graph without cycles; of what lies behind a ``faulty`` step nothing is known."""
        # One bit for each step: a chain of thousands stays cheap.
        self._bit = {step_id: 1 << n for n, step_id in enumerate(graph)}
        self._faulty = sum(self._bit[step_id] for step_id in faulty)
        self._before: dict[str, int] = {}
        for step_id in TopologicalSorter(graph).static_order():
            before = 0
            for each in graph[step_id]:
                before |= self._before[each] | self._bit[each]
            self._before[step_id] = before

    def may_come_before(self, earlier: str, later: str) -> bool:
        """Say whether ``later`` starts only after ``earlier`` is over; yes where a fault hides the answer."""
        before = self._before[later]
        return bool(before & self._bit[earlier] or (before | self._bit[later]) & self._faulty)


def dependents(dependencies: Mapping[str, Sequence[Dependency]]) -> dict[str, tuple[str, ...]]:
    """Return for each step those that wait for it, in the order of the definition."""
    waiting: dict[str, list[str]] = {step_id: [] for step_id in dependencies}
    for step_id, entries in dependencies.items():
        for each in entries:
            waiting[each.step_id].append(step_id)
    return {step_id: tuple(each) for step_id, each in waiting.items()}
