"""Every metric moves when the real thing happens, and is told in docs/metrics.md; the alerts name real ones."""

import json
import os
import re
import resource
import socket
import sqlite3
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from tests.ops.scraped import ROOT, documented, scrape, until
from tests.server import Server

W = "/api/v2/workflows"
HOUR = {"steps": {"a": {"type": "wait", "config": {"duration": "1h"}}}}
SLEEP = {"steps": {"a": {"type": "command", "config": {"command": "sleep", "args": ["60"]}}}}
ECHO = {"steps": {"a": {"type": "command", "config": {"command": "echo", "args": ["hi"]}}}}
RETRIED = {
    "steps": {
        "a": {"type": "command", "config": {"command": "false"}, "retry": {"maxAttempts": 3, "interval": 1}},
    }
}
LONG = {"steps": {"a": {"type": "command", "config": {"command": "seq", "args": ["1500"]}}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(
        tmp_path_factory.mktemp("service"), TAILRACE_MAX_RUNS=3, TAILRACE_DRAIN_TIMEOUT_S=1
    ) as running:
        for name, definition in {
            "hour": HOUR, "sleep": SLEEP, "echo": ECHO, "retried": RETRIED, "long": LONG,
        }.items():  # fmt: skip
            running.create(name, definition)
        yield running


@contextmanager
def locked(path: Path):
    """Hold the write lock of one of the service's files, as a backup program at fault would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("begin immediate")
        yield
        db.execute("rollback")


def test_the_documented_list_is_the_exposed_list(server):
    exposed = scrape(server).families
    assert len(exposed) > 30
    assert sorted(documented()) == sorted(exposed)


def test_every_metric_is_made_to_move_here():
    here = Path(__file__)
    source = here.read_text() + here.with_name("test_stream_metrics.py").read_text()
    assert [name for name in documented() if source.count(f'"{name}') == 0] == []


def test_runs_that_cannot_be_read_are_counted(tmp_path):
    with Server(tmp_path) as server:
        server.create("hour", HOUR)
        server.execute("hour")
        until(server, lambda now: now("tailrace_attempts_running") == 1)
        assert scrape(server)("tailrace_runs_left_out") == 0
        server.kill_hard()
        with closing(sqlite3.connect(server.db)) as db, db:
            damaged = db.execute("update events set data = x'00' where seq = 1")
            assert damaged.rowcount == 1
        server.start()
        until(server, lambda now: now("tailrace_runs_left_out") == 1)
        assert scrape(server)("tailrace_runs_alive") == 0


def test_the_alerts_name_what_is_exposed(server):
    text = (ROOT / "docs/metrics.md").read_text()
    rules = re.findall(
        r"- alert: (\w+)\n +expr: (.+)\n +for: \d+[smh]\n +annotations: {summary: \".+\"}", text
    )
    assert len(rules) == text.count("- alert:")
    assert 6 <= len(rules) <= 10
    assert len({name for name, _ in rules}) == len(rules)
    found = scrape(server)
    names = {sample.name for sample in found.samples} | found.families
    labels = {label for sample in found.samples for label in sample.labels}
    for alert, expression in rules:
        used = re.findall(r"\b(?:tailrace|process)_\w+", expression)
        assert used, alert
        assert set(used) <= names | {"tailrace_step_seconds_count"}, alert
        assert set(re.findall(r"(\w+)=\"", expression)) <= labels | {"outcome"}, alert


def test_both_formats_and_whatever_else_is_asked_for(server):
    plain, accept = server.get("/metrics"), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    openmetrics = server.get("/metrics", Accept=accept)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0;")
    families = {family.name for family in parse_openmetrics(openmetrics.body.decode())}
    assert {"tailrace_append_seconds", "tailrace_events_appended"} <= families
    for hostile in ("application/openmetrics-text;version=x", "text/plain;version=.", "\xff", "a" * 5_000):
        assert server.get("/metrics", Accept=hostile).status == 200
    assert server.post("/metrics").status == 405


def test_what_the_log_has_stored_is_counted_exactly(server):
    before = scrape(server)
    server.finished(server.execute("echo"))
    after = scrape(server)
    lines = server.get("/api/v2/events?include=control", Accept="application/x-ndjson").body.splitlines()
    events = [line.partition(b'"event":')[2][:-1] for line in lines]
    assert all(json.loads(event) for event in events)
    assert after("tailrace_log_events") == after("tailrace_events_appended_total") == len(events)
    assert after("tailrace_event_bytes_appended_total") == sum(map(len, events))
    for name in ("tailrace_append_seconds", "tailrace_flush_seconds", "tailrace_flush_appends"):
        assert after(f"{name}_count") > before(f"{name}_count"), name
    assert after("tailrace_append_seconds_count") == after("tailrace_flush_appends_sum")
    assert after("tailrace_append_seconds_sum") > after("tailrace_flush_seconds_sum") > 0


def test_an_append_that_is_held_up_waits_and_takes_long(server):
    body = {"definition": ECHO}
    with locked(server.db):
        asking = threading.Thread(target=server.post, args=(W, body), daemon=True)
        asking.start()
        until(server, lambda now: now("tailrace_appends_waiting") == 1)
    asking.join()
    after = scrape(server)
    assert after("tailrace_appends_waiting") == 0


def test_a_log_that_cannot_be_written_says_so_until_it_can(server):
    before = scrape(server)
    assert before("tailrace_log_unavailable") == 0
    pid = server.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        assert server.post(W, {"definition": HOUR}).status == 503
        after = scrape(server)
        assert after("tailrace_log_unavailable") == 1
        assert after("tailrace_appends_refused_total", reason="log_unavailable") > 0
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    until(server, lambda now: now("tailrace_log_unavailable") == 0)
    server.wait_until_ready()


def test_the_disk_is_the_one_that_the_log_is_on(server):
    found, really = scrape(server), os.statvfs(server.db.parent)
    assert found("tailrace_disk_free_bytes") == pytest.approx(really.f_bavail * really.f_frsize, rel=0.1)
    assert found("tailrace_disk_min_free_bytes") == 64 * 1024 * 1024


def test_runs_at_work_waiting_and_over(server):
    before = scrape(server)
    runs = [server.execute("hour" if n else "sleep") for n in range(5)]
    until(server, lambda now: now("tailrace_runs_waiting") == now("tailrace_runs", status="queued") == 2)
    until(server, lambda now: now("tailrace_runs_alive") == now("tailrace_runs", status="running") == 3)
    until(server, lambda now: now("tailrace_attempts_running", type="command") == 1)
    during = until(server, lambda now: now("tailrace_attempts_running", type="wait") == 2)
    assert during("tailrace_attempt_places_free") == before("tailrace_attempt_places_free") - 1
    for run_id in runs:
        assert server.post(f"{W}/runs/{run_id}/cancel").status == 202
    for run_id in runs:
        server.finished(run_id)
    after = until(server, lambda now: now("tailrace_runs_alive") == 0)
    assert after("tailrace_runs", status="cancelled") == before("tailrace_runs", status="cancelled") + 5
    assert after("tailrace_run_seconds_count", status="cancelled") == 5
    assert after("tailrace_step_seconds_count", outcome="cancelled") == 5
    assert after("tailrace_attempts_running") == after("tailrace_runs_waiting") == 0
    assert after("tailrace_attempt_places_free") == before("tailrace_attempt_places_free")


def test_steps_that_are_repeated_and_fail(server):
    before = scrape(server)
    server.finished(server.execute("retried"))
    after = scrape(server)

    def grown(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert grown("tailrace_steps_repeated_total", type="command", outcome="failed") == 2
    assert grown("tailrace_step_seconds_count", type="command", outcome="failed") == 1
    assert grown("tailrace_run_seconds_count", status="failed") == 1
    assert grown("tailrace_runs", status="failed") == 1


def test_lists_that_are_behind(server):
    until(server, lambda now: now("tailrace_projection_lag_events") == 0)
    with locked(server.db.with_name("tailrace.db.views")):
        server.create("unseen", ECHO)
        until(
            server,
            lambda now: (
                now("tailrace_projection_lag_events") > 0 and now("tailrace_projection_lag_seconds") > 0.1
            ),
        )
    until(
        server,
        lambda now: now("tailrace_projection_lag_events") == now("tailrace_projection_lag_seconds") == 0,
    )


def test_history_that_is_sealed_and_read_again(server):
    before = scrape(server)
    run_id = server.execute("long")
    server.finished(run_id)
    stream = f"{W}/runs/{run_id}/stream"
    lines = server.get(stream, Accept="application/x-ndjson").body.count(b"\n")
    until(
        server, lambda now: now("tailrace_segments_sealed_total") > before("tailrace_segments_sealed_total")
    )
    until(server, lambda now: now("tailrace_segments_pending") == 0)
    assert server.get(stream, Accept="application/x-ndjson").body.count(b"\n") == lines > 1_500
    after = scrape(server)
    assert after("tailrace_segment_reads_total", source="rows") > before(
        "tailrace_segment_reads_total", source="rows"
    )
    sealed = {
        source: after("tailrace_segment_reads_total", source=source) for source in ("memory", "file", "disk")
    }
    assert sum(sealed.values()) > 0
    assert after("tailrace_segments_cache_bytes") > 10_000


def test_requests_by_the_template_of_their_route_never_by_their_path(server):
    before = scrape(server)
    server.get(f"{W}/secret-of-mine")
    server.get("/nobody/knows")
    server.get("/health", host="evil.example")
    server.request("TRACE", "/health")
    server.request("HEAD", "/health")
    server.get(f"{W}/runs/nobody/stream")
    after = scrape(server)

    def grown(**labels: str) -> float:
        name = "tailrace_http_requests_total"
        return after(name, **labels) - before(name, **labels)

    assert grown(route=W + "/{workflow_id}", method="GET", status="404") == 1
    assert grown(route="none", method="GET", status="404") == 1
    assert grown(route="none", method="GET", status="421") == 1
    assert grown(method="other") == 1
    assert grown(route="/health", method="HEAD", status="200") == 1
    assert grown(route=W + "/runs/{run_id}/stream", method="GET", status="404") == 1
    seconds = "tailrace_http_request_seconds_count"
    assert after(seconds, route="/metrics") == before(seconds, route="/metrics") + 1
    assert not re.search("secret-of-mine|nobody|evil|TRACE", after.text)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"BAD\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 426),
    ],
)
def test_what_is_no_request_is_counted_and_told_with_its_address_and_id(server, sent, status):
    before = scrape(server)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(sent)
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    (request_id,) = re.findall(rb"\r\nx-request-id: ([0-9a-f]{16})\r\n", answer)
    after = until(
        server,
        lambda now: (
            now("tailrace_http_requests_total", route="none", status=str(status))
            == before("tailrace_http_requests_total", route="none", status=str(status)) + 1
        ),
    )
    assert after("tailrace_http_requests_total", method="other") > 0
    (told,) = [line for line in server.diagnostics.read_text().splitlines() if request_id.decode() in line]
    line = json.loads(told)
    assert (line["message"], line["status"], line["client"]) == ("request refused", status, "127.0.0.1")


def test_a_request_that_waits_is_held(server):
    run_id = server.execute("hour")
    until(server, lambda now: now("tailrace_attempts_running", type="wait") == 1)
    path = f"{W}/runs/{run_id}/events?after={server.run(run_id)['lastSeq']}&wait=20s"
    asking = threading.Thread(target=server.get, args=(path,), daemon=True)
    asking.start()
    until(server, lambda now: now("tailrace_http_requests_held") == 1)
    assert server.post(f"{W}/runs/{run_id}/cancel").status == 202
    asking.join()
    until(server, lambda now: now("tailrace_http_requests_held") == 0)


def test_the_process(server):
    before = until(server, lambda now: now("tailrace_loop_lag_seconds_count") > 0)
    assert before("tailrace_info", version=server.get("/health").json["version"]) == 1
    assert before("tailrace_garbage_collection_seconds_count") >= 1
    with_connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    after = until(server, lambda now: now("process_open_fds") >= before("process_open_fds") + 20)
    for connection in with_connections:
        connection.close()
    until(server, lambda now: now("process_cpu_seconds_total") > before("process_cpu_seconds_total"))
    assert after("process_max_fds") > after("process_open_fds")
    assert after("process_virtual_memory_bytes") > after("process_resident_memory_bytes") > 10_000_000
    assert after("process_start_time_seconds") == before("process_start_time_seconds") > 0


def test_lists_of_another_log_are_made_again(tmp_path):
    with Server(tmp_path) as server:
        server.create("echo", ECHO)
        assert scrape(server)("tailrace_projection_rebuilds_total") == 0
        server.stop()
        for path in tmp_path.glob("tailrace.db*"):
            if not path.name.startswith("tailrace.db.views"):
                path.unlink()
        server.start()
        assert scrape(server)("tailrace_projection_rebuilds_total") == 1


def test_runs_wait_to_be_sealed_while_the_disk_has_no_space_to_spare(tmp_path):
    found = os.statvfs(tmp_path)
    with Server(tmp_path, TAILRACE_MIN_FREE_BYTES=found.f_bavail * found.f_frsize * 7 // 10) as server:
        server.create("long", LONG)
        server.finished(server.execute("long"))
        until(server, lambda now: now("tailrace_segments_pending") > 0)
        assert scrape(server)("tailrace_segments_sealed_total") == 0
