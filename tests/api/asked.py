"""What a query of a run's stream asks for, by the words of the contract, of a list in memory."""

import json
import random

from msgspec import Raw
from msgspec.json import decode

from service.api.filters import LEVELS, RUN_TYPES
from service.domain.events import STEP_TYPES


def history(server, run_id: str) -> list[bytes]:
    """Return every event of a run, header and seal included, as the audit's download has them."""
    lines = server.get(f"/api/v2/events?runId={run_id}", accept="application/x-ndjson").body.splitlines()
    return [bytes(decode(line, type=dict[str, Raw])["event"]) for line in lines]


def passing(events: list[bytes], asked: dict[str, str]) -> list[tuple[int, bytes]]:
    """Return what passes the filter of ``asked``, each with its seq."""
    types = {"": STEP_TYPES, "all": RUN_TYPES}.get(asked.get("types", ""), asked.get("types", "").split(","))
    found = []
    for data in events:
        event = json.loads(data)
        payload = event["payload"]
        too_quiet = event["type"] == "step_log" and LEVELS.index(payload["level"]) < LEVELS.index(
            asked.get("level", "debug")
        )
        if event["type"] in types and not too_quiet and asked.get("stepId") in {None, payload.get("stepId")}:
            found.append((event["seq"], data))
    return found


def expected(events: list[bytes], asked: dict[str, str]) -> list[bytes]:
    """Return what ``asked`` asks for of a finished run."""
    found = passing(events, asked)
    after = asked.get("after", "")
    if after == "tail":
        return []
    if after.startswith("-"):
        return [data for _, data in found[int(after) :]]
    return [data for seq, data in found if seq > int(after or -1)]


def any_query(chance: random.Random, last: int) -> dict[str, str]:
    """Return a query of a run of steps a, b and c whose newest event is ``last``."""
    types = [",".join(chance.sample(sorted(RUN_TYPES), count)) for count in (1, 2, 3)]
    choices = {
        "after": [
            None,
            None,
            "tail",
            f"-{chance.randrange(1, last + 9)}",
            str(chance.randrange(last + 1)),
            str(last),
        ],
        "types": [None, "all", *types],
        "stepId": [None, None, "a", "b", "nobody"],
        "level": [None, None, *LEVELS],
        "control": [None, "1"],
    }
    asked = {name: chance.choice(values) for name, values in choices.items()}
    return {name: value for name, value in asked.items() if value is not None}
