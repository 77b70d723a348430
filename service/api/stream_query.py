"""What a stream's request asks for: the cursor and the filter. Every fault is named, nothing is ignored."""

from typing import Any

import msgspec
from msgspec import Struct

from service.api.filters import LEVELS, After, EventFilter, as_after, as_place, as_run_types
from service.api.patience import as_wait
from service.api.requests import Check, as_id, one_of, parse_query
from service.errors import Fault, InvalidInput

FILTER: dict[str, Check] = {"types": as_run_types, "stepId": as_id, "level": one_of(*LEVELS)}

_KNOWN: dict[str, Check] = {
    "after": as_after,
    **FILTER,
    "wait": as_wait,
    "control": one_of("0", "1"),
    "errors": one_of("close"),  # asgi.send_problem reads it: it is about requests that are refused, too
}


class StreamQuery(Struct, frozen=True):
    """What to send: the events that pass ``where``, and from where on.

    ``wait_s``: how long the run may take to exist. ``control``: with messages about the stream itself.
    """

    after: After = After()
    where: EventFilter = EventFilter()
    wait_s: float = 0.0
    control: bool = False

    def of_a_run_to_come(self) -> "StreamQuery":
        """Return what it asks for where the run was not there yet: to ``tail`` and -n, all of it is new."""
        return self if self.after.count is None else msgspec.structs.replace(self, after=After())


def parse_stream_query(query_string: bytes, last_event_id: str | None) -> StreamQuery:
    """Return what the request asks for; ``last_event_id`` (the header) overrides ``after``.

    Raises InvalidInput with every fault; its pointer is ``/query/NAME`` or ``/headers/last-event-id``.
    """
    given, faults = parse_query(query_string, _KNOWN)
    after = given.get("after", After())
    if last_event_id:
        try:
            after = After(seq=as_place(last_event_id, "a seq"))
        except ValueError as error:
            faults.append(Fault("/headers/last-event-id", str(error)))
    if faults:
        raise InvalidInput(faults, detail="The stream was asked for in a way it does not know.")
    return StreamQuery(after, filter_of(given), given.get("wait", 0.0), given.get("control") == "1")


def filter_of(given: dict[str, Any]) -> EventFilter:
    """Return the filter that the parameters of FILTER ask for."""
    names = {"types": "types", "stepId": "step_id", "level": "level"}
    return EventFilter(**{field: given[name] for name, field in names.items() if name in given})


def header(scope: Any, name: bytes) -> str | None:
    """Return a request header, several of one name joined by commas; None if there is none."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else None
