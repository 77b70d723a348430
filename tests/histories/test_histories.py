"""What any release has written is folded, opened and served by this one as it was then."""

import asyncio
import json
import lzma
from pathlib import Path

import pytest

from service.domain.events import STEP_TYPES, decode_event
from service.log import chain_next, chain_seed
from service.log.sqlite import SqliteLog
from service.log.verify import verify
from tests.histories.replayed import DB, LOG, STATES, events_of, fold, runs_of, states_of
from tests.server import Server

RELEASES = sorted(path for path in Path(__file__).parent.iterdir() if (path / LOG).exists())
RUNS = "/api/v2/workflows/runs"


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request) -> Path:
    return request.param


@pytest.fixture
def golden(release, tmp_path) -> Path:
    path = tmp_path / "tailrace.db"
    path.write_bytes(lzma.decompress((release / DB).read_bytes()))
    return path


def lines_of(release: Path) -> list[bytes]:
    return (release / LOG).read_bytes().splitlines()


def test_its_runs_come_to_what_they_came_to_then(release):
    # Today's fold may know more than then: what it knew must be the same.
    states = json.loads(json.dumps(states_of(fold(lines_of(release)))))
    kept = json.loads((release / STATES).read_text())
    assert states.keys() == kept.keys()
    for run_id, state in kept.items():
        assert {name: states[run_id][name] for name in state} == state


def test_it_has_every_type_and_every_outcome(release):
    events = [decode_event(data).payload for data in events_of(lines_of(release))]
    assert {event.type for event in events} == {
        *STEP_TYPES, "run_start", "run_complete", "cancel_requested",
        "workflow_created", "workflow_updated", "workflow_deleted",
    }  # fmt: skip
    ends = {event.status for event in events if event.type == "step_complete"}
    assert ends == {"success", "failed", "skipped", "cancelled"}
    assert {event.outcome for event in events if event.type == "step_log"} >= {
        "failed",
        "timeout",
        "interrupted",
    }
    assert {event.change_type for event in events if event.type == "variable_change"} == {"create", "update"}
    assert {event.status for event in events if event.type == "run_complete"} == {
        "success",
        "failed",
        "cancelled",
    }


def test_its_file_is_found_whole_before_it_is_brought_up_to_date_and_after(release, golden):
    before = golden.read_bytes()
    assert verify(golden).faults == []
    assert golden.read_bytes() == before
    asyncio.run(SqliteLog.open(golden).close())
    assert verify(golden).faults == []


async def test_its_file_holds_the_same_bytes_under_the_same_chain(release, golden):
    log = SqliteLog.open(golden)
    stored = []
    while page := await log.read_all(after=stored[-1].position if stored else 0, limit=50):
        stored += page
    lines = [json.loads(line)["cursor"] for line in lines_of(release)]
    assert [event.data for event in stored] == events_of(lines_of(release))
    assert [event.position for event in stored] == lines
    heads: dict[str, bytes] = {}
    for event in stored:
        heads[event.stream] = chain_next(heads.get(event.stream, chain_seed(event.stream)), event.data)
        assert event.chain in {b"", heads[event.stream]}
    await log.close()


def test_the_service_serves_it_and_goes_on(release, golden):
    runs = runs_of(lines_of(release))
    with Server(golden.parent) as server:
        for run_id, events in runs.items():
            sealed = json.loads(events[-1])["type"] == "run_complete"
            path = f"{RUNS}/{run_id}/{'stream?types=all' if sealed else 'events?types=all'}"
            answer = server.get(path, accept="application/x-ndjson")
            assert (answer.status, server.run(run_id)["status"] == "running") == (200, not sealed)
            if sealed:
                assert answer.body.splitlines() == events
                assert server.run(run_id)["status"] == json.loads(events[-1])["payload"]["status"]
        (unfinished,) = (run_id for run_id in runs if server.run(run_id)["status"] == "running")
        assert server.post(f"{RUNS}/{unfinished}/cancel", {}).status == 202
        assert server.finished(unfinished)["status"] == "cancelled"
        log = server.get("/api/v2/events?include=control", accept="application/x-ndjson").body.splitlines()
        assert log[: len(lines_of(release))] == lines_of(release)
        assert server.finished(server.execute("aborted"))["status"] == "failed"
