"""Says what is wrong with what tailers saw, compared with the history that is stored in the end."""

import json
from collections.abc import Mapping, Sequence

STEP_TYPES = {"step_start", "step_log", "variable_change", "step_complete"}


def faults_of_history(run_id: str, events: Sequence[bytes]) -> list[str]:
    """Check one run's stored events, header and seal included."""
    decoded = [json.loads(event) for event in events]
    types = [event["type"] for event in decoded]
    faults = []
    if [event["seq"] for event in decoded] != list(range(len(decoded))):
        faults.append(f"{run_id}: seqs have gaps or repeats")
    if types[:1] != ["run_start"] or types[-1:] != ["run_complete"] or types.count("run_complete") != 1:
        faults.append(f"{run_id}: does not go from its header to one seal")
    if not set(types[1:-1]) <= STEP_TYPES:
        faults.append(f"{run_id}: foreign types between header and seal")
    steps = decoded[0]["payload"]["definition"]["steps"]
    names = sorted(steps) if isinstance(steps, dict) else sorted(step["id"] for step in steps)
    ended = sorted(e["payload"]["stepId"] for e in decoded if e["type"] == "step_complete")
    if ended != names:
        faults.append(f"{run_id}: steps {names} ended as {ended}")
    return faults


def faults_of_frames(
    run_id: str, seen: Mapping[int, bytes] | Sequence[bytes], events: Sequence[bytes]
) -> list[str]:
    """Check the frames that one client collected over its connections: all step events, once, in order."""
    frames = list(seen.values()) if isinstance(seen, Mapping) else list(seen)
    expected = list(events[1:-1])
    if frames == expected:
        return []
    if len(frames) < len(expected):
        return [f"{run_id}: {len(expected) - len(frames)} events never arrived"]
    first = next((n for n, (a, b) in enumerate(zip(frames, expected, strict=False)) if a != b), len(expected))
    return [f"{run_id}: frame {first} differs from what is stored"]
