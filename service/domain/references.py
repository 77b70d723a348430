"""What expressions may look up: only steps that are over by then, and secrets in a config alone."""

from collections.abc import Mapping, Sequence, Sized

from msgspec import Struct

from service.domain.fields import near, quoted
from service.domain.graph import Ancestry
from service.errors import Fault


class Reference(Struct, frozen=True):
    """A look-up of a step's config or ``when``: its names from the root on, and its place.

    ``place`` precedes the message ("column 4: "), ``secret`` says whether secrets may be seen there.
    """

    step_id: str
    pointer: str
    place: str
    names: Sequence[str | int]
    secret: bool


def steps_read(references: Sequence[Reference]) -> frozenset[str]:
    """Return the steps whose outputs sound ``references`` look up."""
    return frozenset(
        str(reference.names[1])
        for reference in references
        if len(reference.names) > 1 and reference.names[0] == "steps"
    )


def check_references(
    references: Sequence[Reference], steps: Mapping[str, object], ancestry: Ancestry | None
) -> list[Fault]:
    """Return the faults of ``references``; without ``ancestry`` the order is not checked."""
    faults: list[Fault] = []
    for reference in references:
        message = _fault(reference, steps, ancestry, faults)
        if message is not None:
            faults.append(Fault(reference.pointer, reference.place + message))
    return faults


def _fault(
    reference: Reference, steps: Mapping[str, object], ancestry: Ancestry | None, faults: Sized
) -> str | None:
    match reference.names:
        case ["secrets", *_] if not reference.secret:
            return "secrets can be used in config only"
        case ["secrets" | "steps" as name]:
            return f"say which: {name}.NAME"
        case ["steps", str(step_id), *rest]:
            if step_id not in steps:
                return f"there is no step {quoted(step_id)}{near(step_id, steps, faults)}"
            return _step_fault(reference.step_id, step_id, rest, ancestry)
        case ["steps" | "secrets", int(), *_]:
            return "expected a name, not a number"
    return None


def _step_fault(
    reader: str, step_id: str, rest: Sequence[str | int], ancestry: Ancestry | None
) -> str | None:
    if step_id == reader:
        return "a step cannot see its own output"
    if ancestry is not None and not ancestry.may_come_before(step_id, reader):
        return f"step {quoted(step_id)} need not be over by then; add it to dependsOn"
    if rest and rest[0] != "output":
        return f"a step has only an output: steps.{step_id}.output"
    return None
