"""What a run's stream holds, read by a few lines of our own that share nothing with any client under test."""

import json

from tests.server import Server


def stored(server: Server, run_id: str) -> list[str]:
    """Return the text of every step event of a finished run, in order, over server-sent events."""
    server.finished(run_id)
    path = f"/api/v2/workflows/runs/{run_id}/stream"
    answer = server.get(path, accept="text/event-stream")
    assert answer.status == 200, answer
    blocks = answer.body.decode().split("\n\n")
    texts = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields and "event" not in fields:
            texts.append(fields["data"])
    events = [json.loads(text) for text in texts]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len(events) >= 8
    return texts


def guide_lines(texts: list[str]) -> list[str]:
    """Return what the guide's Python and Go clients print for these events; their formats are the same."""
    lines = []
    for text in texts:
        event = json.loads(text)
        payload = event["payload"]
        match event["type"]:
            case "step_start":
                lines.append(f"✓ Step started: {payload['stepName']}")
            case "step_complete":
                lines.append(f"✓ Step completed: {payload['stepName']} ({payload['duration']}ms)")
            case "step_log":
                lines.append(f"  [{payload['level']}] {payload['message']}")
            case "variable_change":
                lines.append(f"  Variable {payload['varName']} = {payload['newValue']}")
    return lines
