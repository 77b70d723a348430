"""Stored histories, folded by the code of today."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from service.domain.definition import parse_definition
from service.domain.events import RunStart, decode_event, parse_time
from service.domain.run import Run, begin, replay
from service.steps.registry import registry

LOG, STATES, DB = "log.ndjson", "states.json", "tailrace.db.xz"


class Line(msgspec.Struct):
    """A line of the audit's download: one event and where it stands in the log."""

    cursor: int
    event: Raw


def events_of(lines: Iterable[bytes]) -> list[bytes]:
    """Return the bytes of every event, in the log's order."""
    return [bytes(msgspec.json.decode(line, type=Line).event) for line in lines]


def runs_of(lines: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Return the events of each run, its header first."""
    runs: dict[str, list[bytes]] = {}
    for data in events_of(lines):
        event = msgspec.json.decode(data)
        if event["type"] in {"cancel_requested", "signal_received"} or "runId" not in event:
            continue
        runs.setdefault(event["runId"], []).append(data)
    return runs


def fold(lines: Iterable[bytes]) -> dict[str, Run]:
    """Return each run as its events leave it."""
    kinds = registry(commands=frozenset({"*"}), http_allow=(), output_bytes_max=1024 * 1024)
    parse = partial(parse_definition, kinds=kinds)
    found = {}
    for run_id, stored in runs_of(lines).items():
        header, *rest = map(decode_event, stored)
        assert isinstance(header.payload, RunStart)
        run = begin(
            run_id, header.payload, parse(header.payload.definition), at_ms=parse_time(header.timestamp)
        )
        run.searchers += 1  # as if somebody looked at every output in the end: it keeps them all
        found[run_id] = replay(run, rest)
    return found


def states_of(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return what runs came to, as plain values."""
    return {run_id: state_of(run) for run_id, run in runs.items()}


def state_of(run: Run) -> dict[str, Any]:
    plain = msgspec.to_builtins(run)
    del plain["definition"]
    for step in plain["steps"].values():
        del step["spec"]  # what a definition says is its own matter, and may get defaults
    return plain
