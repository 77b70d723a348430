"""Runs through their routes: accepted at once, the same request the same run, what was written is read."""

import concurrent.futures
import json
import time

import pytest

from tests.server import Server

W = "/api/v2/workflows"
QUICK = {
    "variables": {"who": "you", "n": 1},
    "steps": {
        "say": {
            "type": "command",
            "config": {"command": "echo", "args": ["{{who}}"]},
            "output": {"said": "stdout"},
        }
    },
}
SLOW = {"steps": {"rest": {"type": "wait", "config": {"duration": "60s"}}}}


@pytest.fixture(scope="module")
def server(server):
    server.create("quick", QUICK)
    server.create("slow", SLOW)
    return server


def test_execute_answers_before_the_run_does(server):
    started = time.monotonic()
    answer = server.post(f"{W}/slow/execute")
    assert time.monotonic() - started < 5
    run = answer.json
    assert (answer.status, answer.headers["location"]) == (202, f"{W}/runs/{run['runId']}")
    assert run.keys() == {"runId", "workflowId", "status", "startTime"}
    assert (run["workflowId"], run["status"]) == ("slow", "queued")
    assert server.run(run["runId"])["startTime"] == run["startTime"]
    server.post(f"{W}/runs/{run['runId']}/cancel")


def test_outputs_beyond_what_one_answer_holds_are_named_and_left_out(server):
    config = {"command": "sh", "args": ["-c", "head -c 60000 /dev/zero | tr '\\0' x"]}
    steps = {f"s{n}": {"type": "command", "config": config} for n in range(100)}
    server.create("large", {"steps": steps})
    run = server.finished(server.execute("large"), timeout_s=60)
    assert run["status"] == "success"
    outputs, omitted = run["context"]["outputs"], run["context"]["omitted"]
    assert [*outputs, *omitted] == list(steps)
    size = len(json.dumps(outputs))
    assert 4_000_000 < size <= 4 * 1024 * 1024 + 10_000
    listed = server.get(f"{W}/runs/{run['runId']}/steps").json["data"]
    assert [row["stepId"] for row in listed if row.get("outputOmitted")] == omitted
    assert [row["stepId"] for row in listed if row["output"] is not None] == list(outputs)
    path = f"{W}/runs/{run['runId']}/events?types=step_complete&stepId={omitted[-1]}"
    (event,) = server.get(path).json["data"]
    assert len(event["payload"]["output"]["stdout"]) == 60_000


def test_a_run_with_its_values(server):
    run_id = server.execute("quick", who="world", extra=[1, {"deep": None}])
    run = server.finished(run_id)
    assert run["status"] == "success"
    assert run["workflowId"] == "quick"
    variables = {"who": "world", "n": 1, "extra": [1, {"deep": None}]}
    assert {name: run["context"]["variables"][name] for name in variables} == variables
    assert run["context"]["variables"]["said"].strip() == "world"
    assert run["context"]["outputs"]["say"]["exitCode"] == 0
    assert "omitted" not in run["context"]
    assert run["error"] is None
    assert run["duration"] >= 0
    assert run["endTime"] >= run["startTime"]
    assert len(run["hash"]) == 64

    steps = server.get(f"{W}/runs/{run_id}/steps").json["data"]
    assert [(step["stepId"], step["status"], step["attempt"]) for step in steps] == [("say", "success", 1)]
    rows = {row["varName"]: row for row in server.get(f"{W}/runs/{run_id}/variables").json["data"]}
    assert (rows["said"]["stepId"], rows["who"]["stepId"], rows["who"]["value"]) == ("say", None, "world")
    events = server.get(f"{W}/runs/{run_id}/events?types=all").json
    assert events["data"][-1]["type"] == "run_complete"
    assert events["data"][-1]["payload"]["lastSeq"] == run["lastSeq"] == events["lastSeq"] - 1
    logs = server.get(f"{W}/runs/{run_id}/logs?level=info").json["data"]
    assert "world" in [line["payload"]["message"] for line in logs]


def test_a_run_keeps_the_version_that_it_was_started_with(server):
    server.create("versions", SLOW)
    run_id = server.execute("versions")
    server.request("PUT", f"{W}/versions", QUICK)
    header = server.get(f"{W}/runs/{run_id}/events?types=run_start").json["data"][0]
    assert (header["payload"]["workflowVersion"], header["payload"]["definition"]) == (1, SLOW)
    assert server.run(run_id)["workflowVersion"] == 1
    server.post(f"{W}/runs/{run_id}/cancel")


# The same request again


def test_a_chosen_run_id_makes_the_request_repeatable(server):
    body = {"runId": "mine-1", "variables": {"who": "a", "n": 2}}
    first = server.post(f"{W}/quick/execute", body)
    assert (first.status, first.json["status"]) == (202, "queued")
    server.finished("mine-1")
    again = server.post(f"{W}/quick/execute", {"variables": {"n": 2, "who": "a"}, "runId": "mine-1"})
    assert (again.status, again.json) == (202, first.json | {"status": "success"})
    for path, other in (
        (f"{W}/quick/execute", body | {"variables": {"who": "b"}}),
        (f"{W}/slow/execute", body),
    ):
        answer = server.post(path, other)
        assert (answer.status, answer.json["runId"]) == (409, "mine-1")


def test_an_idempotency_key_makes_the_request_repeatable(server):
    def send(workflow: str, key: str, **variables):
        return server.post(f"{W}/{workflow}/execute", {"variables": variables}, idempotency_key=key)

    first = send("quick", "order 66", who="x")
    assert send("quick", "order 66", who="x").json["runId"] == first.json["runId"]
    assert send("quick", "order 66", who="y").status == 409
    other_key, other_workflow = send("quick", "order 67", who="x"), send("slow", "order 66", who="x")
    assert len({answer.json["runId"] for answer in (first, other_key, other_workflow)}) == 3
    server.post(f"{W}/runs/{other_workflow.json['runId']}/cancel")


def test_many_at_once_start_one_run(server):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: server.post(f"{W}/quick/execute", idempotency_key="burst"), range(16))
        )
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["runId"] for answer in answers}) == 1


def test_a_repeat_is_answered_even_when_the_workflow_is_gone(server):
    server.create("gone", QUICK)
    first = server.post(f"{W}/gone/execute", idempotency_key="k")
    server.request("DELETE", f"{W}/gone")
    assert server.post(f"{W}/gone/execute", idempotency_key="k").json["runId"] == first.json["runId"]
    assert server.post(f"{W}/gone/execute", idempotency_key="k2").status == 404


# Cancel


def test_cancel_is_repeatable_until_the_run_is_over(server):
    run_id = server.execute("slow")
    for reason in ("not needed", None):
        answer = server.post(f"{W}/runs/{run_id}/cancel", {"reason": reason})
        assert answer.status in {202, 409}, answer
    assert server.finished(run_id)["status"] == "cancelled"
    seal = server.get(f"{W}/runs/{run_id}/events?types=run_complete").json["data"][0]["payload"]
    assert (seal["status"], seal["by"], seal["reason"]) == ("cancelled", "anonymous", "not needed")
    answer = server.post(f"{W}/runs/{run_id}/cancel")
    assert (answer.status, answer.json["status"], answer.json["runStatus"]) == (409, 409, "cancelled")


# Lists


def test_lists_show_what_was_just_written(server):
    server.create("listed", QUICK)
    for n in range(10):
        run_id = server.execute("listed", n=n)
        newest = server.get(f"{W}/runs?limit=1").json["data"][0]["runId"]
        assert newest == run_id, n
        assert server.run(run_id)["context"]["variables"]["n"] == n


def test_lists_are_filtered_and_paged(server):
    server.create("paged", QUICK)
    ids = [server.execute("paged", n=n) for n in range(5)]
    for run_id in ids:
        server.finished(run_id)
    found, cursor = [], ""
    while cursor is not None:
        page = server.get(f"{W}/paged/runs?limit=2" + (f"&cursor={cursor}" if cursor else "")).json
        found += [run["runId"] for run in page["data"]]
        cursor = page["nextCursor"]
    assert found == ids[::-1]
    third = server.run(ids[2])["startTime"]

    def listed(query: str) -> list[str]:
        return [run["runId"] for run in server.get(f"{W}/runs?workflowId=paged&{query}").json["data"]]

    assert listed("status=success") == ids[::-1]
    assert listed("status=running") == []
    assert set(listed(f"since={third}")) >= set(ids[2:])
    assert set(listed(f"until={third}")) <= set(ids[:2])
    assert listed("since=2999-01-01T00:00:00Z") == []
    assert listed("since=2020-01-01T00:00:00%2B02:00") == ids[::-1]


# When we cannot


def test_no_space_no_run_but_everything_can_be_read(tmp_path):
    with Server(tmp_path) as server:
        server.create("quick", QUICK)
        done = server.execute("quick")
        server.finished(done)
    full = Server(tmp_path, TAILRACE_MIN_FREE_BYTES=2**49)
    full.wait_until_ready = lambda: None
    with full:
        answer = full.post(f"{W}/quick/execute", {"runId": "later"})
        assert (answer.status, answer.json["runId"], answer.json["outcome"]) == (503, "later", "not stored")
        assert "retry-after" in answer.headers
        assert full.get(f"{W}/runs/later").status == 404
        for kept in (
            full.post(W, {"definition": QUICK}),
            full.request("PUT", f"{W}/quick", {"definition": SLOW}),
        ):
            assert (kept.status, kept.json["outcome"]) == (503, "not stored")
        assert full.get(f"{W}/quick").json["version"] == 1
        assert full.post(f"{W}/quick/execute", {"runId": done}).status == 202
        assert full.run(done)["status"] == "success"
        ready = full.get("/ready")
        assert (ready.status, "free" in ready.json["reasons"][0]["text"]) == (503, True)
        assert full.get("/health").status == 200
        assert full.request("DELETE", f"{W}/quick").status == 204
