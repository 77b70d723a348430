"""History over HTTP: pages of a run, its messages, and the log of all runs; the bytes are the stored ones."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import api
from service.api.context import Context
from service.domain.events import CancelRequested, StepComplete, StepStart, WorkflowCreated, format_time
from service.log import Log
from service.log.memory import MemoryLog
from service.projection.views import EVENT_TYPES
from tests.api.inside import context_of, trusting
from tests.projection.histories import (
    START_MS,
    append_frames,
    append_run,
    append_signal,
    append_workflow,
    guide_frames,
    log_line,
    long_frames,
    seal,
    start,
)
from tests.projection.house import projecting

RUN_TYPES = "run_start,step_start,step_log,variable_change,step_complete,run_complete"


class History:
    """The API over a log, asked in process."""

    def __init__(self, log: Log, context: Context) -> None:
        self.log = log
        self.context = context
        transport = httpx.ASGITransport(trusting(api(context, None)), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://here/api/v2")

    async def get(self, path: str, status: int = 200, **headers: str) -> Any:
        answer = await self._client.get(path, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def lines(self, path: str) -> list[dict]:
        answer = await self._client.get(path, headers={"accept": "application/x-ndjson"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in answer.text.splitlines()]

    async def pages(self, path: str, name: str, **headers: str) -> list[dict]:
        """Return the events of every page, each as large as asked for at most."""
        found: list[dict] = []
        cursor: int | None = None
        for _ in range(10_000):
            more = "" if cursor is None else f"{'&' if '?' in path else '?'}{name}={cursor}"
            page = await self.get(path + more, **headers)
            assert len(page["data"]) <= page["limit"]
            found += page["data"]
            if page["nextCursor"] is None:
                return found
            assert cursor is None or page["nextCursor"] > cursor
            cursor = page["nextCursor"]
        raise AssertionError("no end")


@pytest.fixture
async def history(tmp_path: Path):
    log = MemoryLog()
    async with projecting(tmp_path / "views", log) as projections:
        yield History(log, context_of(log, projections))


def places(events: list[dict]) -> list[tuple[str, str, int]]:
    return [(event.get("runId") or event["workflowId"], event["type"], event["seq"]) for event in events]


def seqs(events: list[dict]) -> list[int]:
    return [event["seq"] for event in events]


# One run


async def test_a_page_is_the_streams_default_and_its_bytes(history: History) -> None:
    await append_frames(history.log, "r1", guide_frames())
    stored = [event.data for event in await history.log.read("run/r1", after=0, limit=9)]
    answer = await history._client.get("/workflows/runs/r1/events")
    rest = b'"limit":100,"nextCursor":null,"lastSeq":10,"status":"success"'
    assert answer.content == b'{"data":[%b],%b}' % (b",".join(stored), rest)


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 1_000])
@pytest.mark.parametrize(
    "types", ["", "types=all", "types=step_complete", "types=run_start", "types=step_log,run_complete"]
)
async def test_pages_hold_every_event_once(history: History, limit: int, types: str) -> None:
    await append_frames(history.log, "r1", guide_frames())
    wanted = {"": "step_start,step_log,variable_change,step_complete", "types=all": RUN_TYPES}.get(
        types, types[6:]
    )
    events = await history.log.read("run/r1", after=-1, limit=100)
    expected = [event.seq for event in events if event.type in wanted.split(",")]
    assert seqs(await history.pages(f"/workflows/runs/r1/events?limit={limit}&{types}", "after")) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [("", list(range(1, 10))), ("after=0", list(range(1, 10))), ("after=7", [8, 9]), ("after=10", []),
     ("after=tail", []), ("after=-2", [8, 9]), ("after=-1&types=all", [10]), ("after=-2&types=step_complete", [5, 9]),
     ("after=-100", list(range(1, 10)))],
)  # fmt: skip
async def test_after_means_what_it_means_to_the_stream(
    history: History, after: str, expected: list[int]
) -> None:
    await append_frames(history.log, "r1", guide_frames())
    page = await history.get(f"/workflows/runs/r1/events?{after}")
    assert (seqs(page["data"]), page["nextCursor"], page["lastSeq"]) == (expected, None, 10)


async def test_a_page_that_comes_to_the_end_of_a_live_run_says_where_to_go_on(history: History) -> None:
    await append_run(history.log, "r1", [start(), StepStart("step1", "…", 1)])
    page = await history.get("/workflows/runs/r1/events?types=step_complete")
    assert (page["data"], page["nextCursor"], page["lastSeq"]) == ([], None, 1)
    await append_run(history.log, "r1", [StepComplete("step1", "…", "success", 1, 1)], after=1)
    assert seqs((await history.get("/workflows/runs/r1/events?after=1"))["data"]) == [2]


async def test_a_page_looks_at_so_much_and_no_more(history: History) -> None:
    await append_frames(history.log, "r1", long_frames(50_000))
    page = await history.get("/workflows/runs/r1/events?types=step_complete")
    assert page["data"] == []
    assert 10_000 < page["nextCursor"] < 30_000
    assert seqs(await history.pages("/workflows/runs/r1/events?types=step_complete", "after")) == [50_002]


async def test_a_page_holds_so_many_bytes_and_no_more(history: History) -> None:
    await append_run(history.log, "r1", [start()])
    for number in range(100):
        await append_run(history.log, "r1", [log_line("step1", "x" * 60_000)] * 3, after=number * 3)
    answer = await history._client.get("/workflows/runs/r1/events?limit=1000")
    assert 4_000_000 < len(answer.content) < 5_000_000
    assert seqs(await history.pages("/workflows/runs/r1/events?limit=1000", "after")) == list(range(1, 301))


async def test_messages_by_step_and_level(history: History) -> None:
    lines = [
        log_line(step, f"{step} {level} {number}", level)
        for number in range(30) for step in ("a", "b") for level in ("debug", "info", "warn", "error")
    ]  # fmt: skip
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1), *lines, seal("success", 241)])

    async def messages(query: str) -> list[str]:
        found = await history.pages(f"/workflows/runs/r1/logs?limit=7&{query}", "after")
        return [event["payload"]["message"] for event in found]

    assert await messages("") == [line.message for line in lines]
    assert await messages("stepId=a") == [line.message for line in lines if line.step_id == "a"]
    assert await messages("level=warn") == [line.message for line in lines if line.level in {"warn", "error"}]
    assert await messages("level=error&stepId=b") == [f"b error {number}" for number in range(30)]
    assert await messages("level=debug") == [line.message for line in lines]
    assert await messages("stepId=nobody") == []
    assert seqs((await history.get("/workflows/runs/r1/logs?after=-1"))["data"]) == [241]


async def test_events_by_step_and_level(history: History) -> None:
    lines = [log_line(step, level, level) for step in ("a", "b") for level in ("debug", "warn")]
    await append_run(history.log, "r1", [start(), StepStart("a", "…", 1), *lines, seal("success", 5)])

    async def found(query: str) -> list[int]:
        return seqs(await history.pages(f"/workflows/runs/r1/events?limit=2&{query}", "after"))

    assert await found("stepId=a") == [1, 2, 3]
    assert await found("level=warn") == [1, 3, 5]
    assert await found("types=all&level=warn&stepId=b") == [5]
    assert await found("types=all&level=error") == [0, 1, 6]
    assert seqs((await history.get("/workflows/runs/r1/events?after=-2&level=warn"))["data"]) == [3, 5]


@pytest.mark.parametrize(
    "path",
    [
        "/workflows/runs/r2/events",
        "/workflows/runs/r2/logs",
        "/workflows/runs/runs/logs",
        "/workflows/runs/a.b/events",
    ],
)
async def test_an_unknown_run(history: History, path: str) -> None:
    await append_run(history.log, "r1", [start()])
    assert (await history.get(path, 404))["status"] == 404


async def test_a_seq_above_the_head_is_refused(history: History) -> None:
    await append_run(history.log, "r1", [start()])
    assert (await history.get("/workflows/runs/r1/events?after=1", 409))["lastSeq"] == 0


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/workflows/runs/r1/events?after=x", "/query/after"),
        ("/workflows/runs/r1/events?after=-0", "/query/after"),
        ("/workflows/runs/r1/events?after=1e3", "/query/after"),
        ("/workflows/runs/r1/events?after=9999999999999999", "/query/after"),
        ("/workflows/runs/r1/events?after=%D9%A1", "/query/after"),
        ("/workflows/runs/r1/events?types=", "/query/types"),
        ("/workflows/runs/r1/events?types=step_log,all", "/query/types"),
        ("/workflows/runs/r1/events?types=cancel_requested", "/query/types"),
        ("/workflows/runs/r1/events?limit=0", "/query/limit"),
        ("/workflows/runs/r1/events?limit=1001", "/query/limit"),
        ("/workflows/runs/r1/events?level=loud", "/query/level"),
        ("/workflows/runs/r1/events?limit=1&limit=2", "/query/limit"),
        ("/workflows/runs/r1/logs?level=loud", "/query/level"),
        ("/workflows/runs/r1/logs?types=all", "/query/types"),
        ("/workflows/runs/r1/logs?stepId=", "/query/stepId"),
        ("/workflows/runs/r1/logs?stepId=a%20b", "/query/stepId"),
        ("/workflows/runs/r1/events?stepId=a%20b", "/query/stepId"),
        ("/events?type=nothing", "/query/type"),
        ("/events?type=cancel_requested", "/query/type"),
        ("/events?type=workflow_created,run_start", "/query/type"),
        ("/events?include=all", "/query/include"),
        ("/events?cursor=-1", "/query/cursor"),
        ("/events?since=yesterday", "/query/since"),
        ("/events?until=2026-01-01", "/query/until"),
        ("/events?runId=a%2Fb", "/query/runId"),
        ("/events?after=1", "/query/after"),
    ],
)
async def test_faults_are_named(history: History, path: str, pointer: str) -> None:
    await append_run(history.log, "r1", [start()])
    problem = await history.get(path, 400)
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


# All runs


async def fill(log: Log) -> list[dict]:
    """Append runs of two workflows, turn by turn, with wishes and definitions between; return all in order."""
    await append_workflow(log, "a", WorkflowCreated(1, {"steps": {}}, "h"))
    frames = {f"r{number}": guide_frames() for number in range(6)}
    for number, run in enumerate(frames.values()):
        run[0] = [start("ab"[number % 2])]
    await append_workflow(log, "b", WorkflowCreated(1, {"steps": {}}, "h"))
    for turn in range(5):
        for number, (run_id, run) in enumerate(frames.items()):
            after = sum(len(frame) for frame in run[:turn]) - 1
            await append_run(log, run_id, run[turn], after=after, at_ms=START_MS + 1_000 * number)
            if turn < 3 and number in {1, 2}:
                await append_signal(log, run_id, CancelRequested("me"), after=turn - 1)
    return [json.loads(event.data) for event in await log.read_all(after=0, limit=1_000)]


WISHED = {"cancel_requested", "workflow_created"}
FILTERS = {
    "": lambda event: event["type"] not in WISHED,
    "include=control": lambda event: True,
    "type=run_start": lambda event: event["type"] == "run_start",
    "type=step_log,run_complete": lambda event: event["type"] in {"step_log", "run_complete"},
    "include=control&type=cancel_requested": lambda event: event["type"] == "cancel_requested",
    "include=control&type=workflow_created,run_start": lambda event: event["type"] in {"workflow_created", "run_start"},
    "runId=r2": lambda event: event.get("runId") == "r2" and event["type"] not in WISHED,
    "runId=r2&include=control": lambda event: event.get("runId") == "r2",
    "runId=r2&type=step_start": lambda event: event.get("runId") == "r2" and event["type"] == "step_start",
    "runId=r2&workflowId=a": lambda event: event.get("runId") == "r2" and event["type"] not in WISHED,
    "runId=r2&workflowId=b": lambda event: False,
    "runId=nobody&include=control": lambda event: False,
    "workflowId=a": lambda event: event.get("runId") in {"r0", "r2", "r4"} and event["type"] not in WISHED,
    "workflowId=a&include=control": lambda event: event.get("runId") in {"r0", "r2", "r4"} or event.get("workflowId") == "a",
    "workflowId=nothing": lambda event: False,
    f"since={format_time(START_MS + 3_005)}": lambda event: event["type"] not in WISHED and event["timestamp"] >= format_time(START_MS + 3_005),
    f"until={format_time(START_MS + 3_005)}&runId=r3": lambda event: event.get("runId") == "r3" and event["seq"] < 5,
    "since=2020-01-01T00:00:00%2B01:00&type=run_start": lambda event: event["type"] == "run_start",
}  # fmt: skip


@pytest.mark.parametrize("query", FILTERS)
async def test_the_audit_finds_what_passes_in_the_logs_order(history: History, query: str) -> None:
    expected = [event for event in await fill(history.log) if FILTERS[query](event)]
    assert await history.pages(f"/events?limit=1000&{query}", "cursor") == expected
    for limit in (1, 2, 7):
        assert await history.pages(f"/events?limit={limit}&{query}", "cursor") == expected
    assert [line["event"] for line in await history.lines(f"/events?{query}")] == expected


@pytest.mark.parametrize(
    "query", ["", "include=control", "runId=r2&include=control", "workflowId=b", "type=step_log"]
)
async def test_every_line_has_the_cursor_that_goes_on_behind_it(history: History, query: str) -> None:
    await fill(history.log)
    lines = await history.lines(f"/events?{query}")
    cursors = [line["cursor"] for line in lines]
    assert cursors == sorted(set(cursors))
    for index in range(0, len(lines), 5):
        assert await history.lines(f"/events?{query}&cursor={cursors[index]}") == lines[index + 1 :]
        page = await history.get(f"/events?{query}&cursor={cursors[index]}&limit=3")
        assert page["data"] == [line["event"] for line in lines[index + 1 : index + 4]]


async def test_the_audit_goes_on_where_the_log_ended(history: History) -> None:
    await fill(history.log)
    end = (await history.get("/events?type=run_complete&limit=1000"))["lastCursor"]
    assert await history.get(f"/events?cursor={end}") == {
        "data": [],
        "limit": 100,
        "nextCursor": None,
        "lastCursor": end,
    }
    await append_run(history.log, "new", [start()])
    assert places((await history.get(f"/events?cursor={end}"))["data"]) == [("new", "run_start", 0)]
    assert (await history.get(f"/events?cursor={end + 2}", 409))["lastCursor"] == end + 1


async def test_a_run_with_many_wishes_and_events_is_merged_in_order(history: History) -> None:
    await append_run(history.log, "r1", [start()])
    for number in range(800):
        await append_run(
            history.log, "r1", [log_line("step1", "…")] * (1 + number % 2), after=number + number // 2
        )
        await append_signal(history.log, "r1", CancelRequested("me"), after=number - 1)
        await append_run(history.log, f"other-{number}", [start()])
    expected = [
        json.loads(event.data) for event in await history.log.read_all(after=0, limit=10_000)
        if event.stream in {"run/r1", "signal/r1"}
    ]  # fmt: skip
    assert [line["event"] for line in await history.lines("/events?runId=r1&include=control")] == expected
    assert await history.pages("/events?runId=r1&include=control&limit=333", "cursor") == expected


async def test_a_limit_of_lines(history: History) -> None:
    await fill(history.log)
    whole = await history.lines("/events")
    assert await history.lines("/events?limit=5") == whole[:5]
    assert await history.lines("/events?limit=1000") == whole


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("*/*", "json"), ("application/json", "json"), ("application/x-ndjson", "ndjson"),
     ("application/x-ndjson, application/json;q=0.5", "ndjson"), ("application/*", "json")],
)  # fmt: skip
async def test_the_accept_header_chooses(history: History, accept: str, kind: str) -> None:
    answer = await history._client.get("/events", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(f"application/{'x-' if kind == 'ndjson' else ''}{kind}")
    assert answer.headers["vary"] == "accept"


async def test_an_accept_that_cannot_be_met(history: History) -> None:
    await history.get("/events", 406, accept="text/html")


async def test_a_download_that_the_end_of_the_service_cuts_says_so(history: History) -> None:
    await fill(history.log)
    history.context.closing.set()
    (line,) = await history.lines("/events")
    assert line["problem"]["status"] == 503


async def test_a_download_ends_where_the_log_ended_when_it_was_asked_for(
    history: History, monkeypatch
) -> None:
    expected = [event for event in await fill(history.log) if event["type"] not in WISHED]
    read_all, number = history.log.read_all, 0

    async def busy(**asked: Any) -> Any:
        nonlocal number
        if asked.get("types") != EVENT_TYPES:  # those are the lists', which may read before the request does
            number += 1
            await append_run(history.log, f"meanwhile-{number}", [start()])
        return await read_all(**asked)

    monkeypatch.setattr(history.log, "read_all", busy)
    assert [line["event"] for line in await history.lines("/events")] == expected
    assert (await history.get("/events?limit=1000"))["data"][: len(expected)] == expected
    assert number > 0
