"""What the views say of a log."""

import random
from pathlib import Path

import msgspec
import pytest

from service.domain.events import (
    Error,
    StepComplete,
    StepStart,
    VariableChange,
    WorkflowCreated,
    WorkflowDeleted,
    WorkflowUpdated,
    format_time,
)
from service.log import chain_next, chain_seed
from service.log.memory import MemoryLog
from service.projection import Projections, RunCursor, RunFilter
from service.projection.views import EVENT_TYPES, Views
from tests.projection.histories import (
    START_MS,
    append_frames,
    append_run,
    append_workflow,
    guide_frames,
    log_line,
    seal,
    start,
)
from tests.projection.house import projecting, tables


def plain(document: object) -> object:
    """Return a document as a client sees it."""
    return msgspec.json.decode(msgspec.json.encode(document))


@pytest.fixture
def log():
    return MemoryLog()


@pytest.fixture
async def projections(tmp_path: Path, log):
    async with projecting(tmp_path / "views", log) as following:
        yield following


async def ids(projections: Projections, **where: str) -> list[str]:
    runs, cursor = await projections.runs(RunFilter(**where), before=None, limit=1_000)
    assert cursor is None
    return [run.run_id for run in runs]


# One run


async def test_the_guides_run(log, projections) -> None:
    await append_frames(log, "r1", guide_frames())
    chain = chain_seed("run/r1")
    for event in await log.read("run/r1", after=-1, limit=100):
        chain = chain_next(chain, event.data)
    output = {"userId": 1, "id": 1, "title": "sunt aut facere", "body": "quia et suscipit " * 8}
    assert plain(await projections.run_detail("r1")) == {
        "runId": "r1",
        "workflowId": "guide",
        "workflowVersion": 1,
        "status": "success",
        "startTime": format_time(START_MS),
        "endTime": format_time(START_MS + 10),
        "duration": 395,
        "lastSeq": 9,
        "error": None,
        "hash": chain.hex(),
        "startedBy": None,
        "context": {
            "variables": {
                "apiUrl": "https://jsonplaceholder.typicode.com/posts/1",
                "title": "sunt aut facere",
                "userId": 1,
            },
            "outputs": {"step1": output, "step2": {"stdout": "Processing user 1"}},
        },
    }
    first, second = plain(await projections.steps("r1"))
    assert first == {
        "stepId": "step1",
        "stepName": "Fetch User Data",
        "status": "success",
        "attempt": 1,
        "startTime": format_time(START_MS + 1),
        "endTime": format_time(START_MS + 5),
        "duration": 245,
        "error": None,
        "output": output,
    }
    assert (second["stepId"], second["stepName"], second["status"]) == ("step2", "Process Data", "success")
    assert plain(await projections.variables("r1")) == [
        {
            "varName": "apiUrl",
            "value": "https://jsonplaceholder.typicode.com/posts/1",
            "stepId": None,
            "seq": 0,
        },
        {"varName": "title", "value": "sunt aut facere", "stepId": "step1", "seq": 4},
        {"varName": "userId", "value": 1, "stepId": "step1", "seq": 3},
    ]


async def test_a_run_is_queued_then_running_then_over_and_its_last_seq_is_the_newest(
    log, projections
) -> None:
    await append_run(log, "r1", [start()])
    seen = [await projections.run_detail("r1")]
    await append_run(log, "r1", [StepStart("step1", "Fetch User Data", 1)], after=0)
    seen.append(await projections.run_detail("r1"))
    await append_run(log, "r1", [log_line("step1", "one"), log_line("step1", "two")], after=1)
    seen.append(await projections.run_detail("r1"))
    await append_run(log, "r1", [seal("failed", 4, Error("step_failed", "It broke.", "step1"))], after=3)
    seen.append(await projections.run_detail("r1"))
    assert [(run.status, run.last_seq) for run in seen] == [
        ("queued", 0), ("running", 1), ("running", 3), ("failed", 4),
    ]  # fmt: skip
    assert plain(seen[-1].error) == {"code": "step_failed", "message": "It broke.", "stepId": "step1"}
    assert [step.status for step in await projections.steps("r1")] == ["running", "pending"]


async def test_a_step_keeps_its_first_start_through_attempts(log, projections) -> None:
    await append_run(log, "r1", [start(), StepStart("step1", "Fetch User Data", 1)])
    await projections.caught_up()  # so that the attempts come in different batches
    await append_run(log, "r1", [StepStart("step1", "Fetch User Data", 2)], after=1)
    assert [step.attempt for step in await projections.steps("r1")] == [2, 0]
    error = Error("timeout", "Too slow.")
    await append_run(
        log, "r1",
        [
            StepComplete("step1", "Fetch User Data", "failed", 7, 2, error=error),
            StepComplete("step2", "Process Data", "skipped", 0, 0),
        ],
        after=2,
    )  # fmt: skip
    first, second = plain(await projections.steps("r1"))
    assert (first["startTime"], first["endTime"]) == (format_time(START_MS + 1), format_time(START_MS + 3))
    assert (first["status"], first["attempt"], first["error"]["code"]) == ("failed", 2, "timeout")
    assert (second["status"], second["startTime"], second["output"]) == ("skipped", None, None)


async def test_steps_given_as_a_list_keep_its_order(log, projections) -> None:
    steps = [{"id": "z", "type": "wait"}, {"id": "a", "name": "Last", "type": "wait"}]
    await append_run(log, "r1", [start(definition={"steps": steps})])
    assert [(step.step_id, step.step_name) for step in await projections.steps("r1")] == [
        ("z", "z"),
        ("a", "Last"),
    ]


async def test_variables_change_and_go(log, projections) -> None:
    await append_run(log, "r1", [start(gone=1, kept=None)])
    await projections.caught_up()
    await append_run(
        log, "r1",
        [
            VariableChange("step1", "gone", 1, None, "delete"),
            VariableChange("step1", "brief", None, 1, "create"),
            VariableChange("step1", "brief", 1, None, "delete"),
            VariableChange("step1", "apiUrl", "…", {"deep": [1.5, "é"]}, "update"),
        ],
        after=0,
    )  # fmt: skip
    values = {row.var_name: plain(row.value) for row in await projections.variables("r1")}
    assert values == {"apiUrl": {"deep": [1.5, "é"]}, "kept": None}


async def test_an_unknown_run(projections) -> None:
    assert await projections.run_detail("r1") is None
    assert await projections.steps("r1") is None
    assert await projections.variables("r1") is None


@pytest.mark.parametrize("seed", range(20))
async def test_pages_of_any_size_make_the_same_tables(log, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    frames = {f"r{number}": guide_frames() for number in range(6)}
    frames["r5"][1:] = [[VariableChange("step1", "apiUrl", "", None, "delete")], [seal("cancelled", 2)]]
    last = dict.fromkeys(frames, -1)
    while frames:
        run_id = dice.choice(list(frames))
        last[run_id] = (await append_run(log, run_id, frames[run_id].pop(0), after=last[run_id])).seq
        if not frames[run_id]:
            del frames[run_id]
    for name, largest in (("whole", 1_000), ("parts", 9), ("single", 1)):
        views, after = Views.open(tmp_path / name), 0
        while page := await log.read_all(after=after, limit=dice.randint(1, largest), types=EVENT_TYPES):
            views.apply(page)
            after = page[-1].position
        views.close()
    assert tables(tmp_path / "whole") == tables(tmp_path / "parts") == tables(tmp_path / "single")
    assert len(tables(tmp_path / "whole")["runs"]) == 6


# Lists


async def test_lists_are_filtered_newest_first(log, projections) -> None:
    for number, workflow in enumerate(["a", "b", "a", "b"]):
        await append_run(log, f"r{number}", [start(workflow)], at_ms=START_MS + 1000 * number)
    await append_run(log, "r1", [seal("success", 1)], after=0)
    await append_run(log, "r2", [StepStart("step1", "…", 1)], after=0)
    assert await ids(projections) == ["r3", "r2", "r1", "r0"]
    assert await ids(projections, workflow_id="a") == ["r2", "r0"]
    assert await ids(projections, workflow_id="b", status="success") == ["r1"]
    assert await ids(projections, status="queued") == ["r3", "r0"]
    assert await ids(projections, since=format_time(START_MS + 1000)) == ["r3", "r2", "r1"]
    assert await ids(projections, until=format_time(START_MS + 1000)) == ["r0"]
    assert await ids(projections, workflow_id="nothing") == []
    runs, _ = await projections.runs(RunFilter(), before=None, limit=10)
    assert [run.last_seq for run in runs] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "where", [{}, {"workflow_id": "a"}, {"status": "queued"}, {"workflow_id": "a", "status": "queued"}]
)
async def test_pages_of_a_list_hold_each_run_once(log, projections, where: dict[str, str]) -> None:
    dice = random.Random(7)
    for number in range(60):  # many of the same millisecond, and a clock that goes back
        workflow = dice.choice("ab")
        await append_run(log, f"r{number}", [start(workflow)], at_ms=START_MS + dice.randint(0, 5))
    whole, found, before = await ids(projections, **where), [], None
    while True:
        page, cursor = await projections.runs(RunFilter(**where), before=before, limit=7)
        found += [run.run_id for run in page]
        if cursor is None:
            break
        before = RunCursor.parse(cursor.text())
        assert before == cursor
    assert found == whole
    assert len(whole) == len(set(whole)) > 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "é",
        "AAAA",
        "MjAyNSAx MQ",
        "a" * 5_000,
        RunCursor("t", 2**63).text(),
        RunCursor("t", -1).text(),
    ],
)
def test_a_made_up_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nextCursor"):
        RunCursor.parse(text)


async def test_definitions(log, projections) -> None:
    await append_workflow(log, "b", WorkflowCreated(1, {"steps": {}}, "h", name="B", description="first"))
    await append_workflow(log, "a", WorkflowCreated(1, {"steps": {}}, "h"), at_ms=START_MS + 1)
    await append_workflow(log, "c", WorkflowCreated(1, {"steps": {}}, "h"))
    await projections.caught_up()
    await append_workflow(
        log, "b", WorkflowUpdated(2, {"steps": {}}, "i", name="B2"), after=0, at_ms=START_MS + 5
    )
    await append_workflow(log, "c", WorkflowDeleted(2), after=0)
    a, b = plain(await projections.workflows(after="", limit=10))
    assert (a["workflowId"], a["name"], a["createdAt"]) == ("a", None, format_time(START_MS + 1))
    assert b == {
        "workflowId": "b",
        "version": 2,
        "name": "B2",
        "description": None,
        "createdAt": format_time(START_MS),
        "updatedAt": format_time(START_MS + 5),
    }
    assert await projections.workflow_count() == 2
    assert [row.workflow_id for row in await projections.workflows(after="a", limit=10)] == ["b"]
    await append_workflow(log, "c", WorkflowCreated(3, {"steps": {}}, "j"), after=1)
    assert [row.workflow_id for row in await projections.workflows(after="b", limit=10)] == ["c"]
