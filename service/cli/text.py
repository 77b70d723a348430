"""How events, runs and lists read in a terminal; what programs should read is JSON and does not pass here."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from service.client import Event

VALUE_LENGTH_MAX = 200  # characters of a value in a line; `-o json` has all of it
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLOURS = {
    "success": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "bright_black",
    "running": "cyan",
    "warn": "yellow",
    "error": "red",
    "debug": "bright_black",
}


def event_line(event: Event) -> str:
    """Return an event as one line: when, which step, what."""
    when = click.style(event.timestamp[11:23], fg="bright_black")
    step = f"{plain(str(event.payload.get('stepId', ''))):<12}"
    return f"{when}  {step}  {_what(event.type, event.payload)}"


def _what(type_: str, payload: Mapping[str, Any]) -> str:  # noqa: PLR0911  one return per type
    match type_:
        case "step_start":
            again = f" (attempt {payload['attempt']})" if payload.get("attempt", 1) > 1 else ""
            return click.style(f"▶ {plain(payload['stepName'])}{again}", bold=True)
        case "step_log":
            level = payload["level"]
            return f"  {click.style(f'{level:<5}', fg=_COLOURS.get(level))} {plain(payload['message'])}"
        case "variable_change":
            was, now = value(payload["oldValue"]), value(payload["newValue"])
            return f"  {plain(payload['varName'])}: {was} → {now}"
        case "step_complete":
            mark = "✔" if payload["status"] == "success" else "✘" if payload["status"] == "failed" else "·"
            said = f"{mark} {plain(payload['stepName'])} {payload['status']} {payload['duration']} ms"
            return click.style(said, fg=_COLOURS.get(payload["status"])) + _error(payload)
        case "run_start":
            return f"run of {plain(payload['workflowId'])} version {payload['workflowVersion']}"
        case "run_complete":
            return click.style(f"run {payload['status']} {payload['duration']} ms") + _error(payload)
        case _:
            return f"{plain(type_)} {value(payload)}"


def _error(payload: Mapping[str, Any]) -> str:
    error = payload.get("error")
    return f": {plain(error['message'])}" if error else ""


def status_text(status: str) -> str:
    """Return a status in its colour."""
    return click.style(status, fg=_COLOURS.get(status))


def run_lines(run: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a run and its steps as lines."""
    error = run["error"]
    facts = [
        ("run", plain(run["runId"])),
        ("workflow", f"{plain(run['workflowId'])} version {run['workflowVersion']}"),
        ("status", status_text(run["status"])),
        ("started", run["startTime"]),
        ("ended", run["endTime"] or "-"),
        ("duration", _ms(run["duration"])),
        ("last seq", str(run["lastSeq"])),
        *([("error", f"{plain(error['code'])}: {plain(error['message'])}")] if error else []),
        *((f"  {plain(name)}", value(each)) for name, each in run["context"]["variables"].items()),
    ]
    width = max(len(name) for name, _ in facts)
    rows = [
        (step["stepId"], step["status"], str(step["attempt"]), _ms(step["duration"]), step["stepName"])
        for step in steps
    ]
    return [
        *(f"{name:<{width}}  {fact}" for name, fact in facts),
        "",
        *table(("STEP", "STATUS", "ATTEMPT", "DURATION", "NAME"), rows),
    ]


def run_table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a list of runs as aligned lines."""
    rows = [
        (run["runId"], run["workflowId"], run["status"], run["startTime"], _ms(run["duration"]))
        for run in runs
    ]
    return table(("RUN", "WORKFLOW", "STATUS", "STARTED", "DURATION"), rows)


def workflow_table(workflows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a list of workflows as aligned lines."""
    rows = [(each["workflowId"], str(each["version"]), each["name"] or "") for each in workflows]
    return table(("WORKFLOW", "VERSION", "NAME"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned columns under ``head``; words that are a status get its colour."""
    cells = [head, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)]
    lines = []
    for row in cells:
        padded = [
            click.style(f"{cell:<{width}}", fg=_COLOURS.get(cell))
            for cell, width in zip(row, [*widths, 0], strict=True)
        ]
        lines.append("  ".join(padded))
    return lines


def value(document: object) -> str:
    """Return a JSON value as one short line."""
    text = plain(json.dumps(document, ensure_ascii=False))
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[: VALUE_LENGTH_MAX - 1]}…"


def plain(text: str) -> str:
    """Return ``text`` without what a terminal would obey: control and direction characters become escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _ms(duration: int | None) -> str:
    return "-" if duration is None else f"{duration} ms"
