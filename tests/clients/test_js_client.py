"""The JavaScript client in Node, against the real service: every event once, in order, as recorded, to the end."""

from uuid import uuid4

import pytest

from tests.clients.javascript import DEFINITION, HELD, texts
from tests.clients.waiting import AWAY_S
from tests.server import Server

both = pytest.mark.parametrize("transport", ["websocket", "sse"])


def started(server, upstream, **variables) -> str:
    """Start a run under an id of its own."""
    run_id = f"js-{uuid4()}"
    body = {"runId": run_id, "variables": {"apiUrl": upstream.url, **variables}}
    assert server.post("/api/v2/workflows/js/execute", body).status == 202
    return run_id


@pytest.fixture(scope="module")
def finished(hosted, upstream):
    run_id = started(hosted, upstream, lines=20)
    hosted.finished(run_id)
    return run_id


def ended(server, run_id, received: int) -> dict:
    """Return how the client must find that the run ended."""
    run = server.run(run_id)
    return {"status": run["status"], "lastSeq": run["lastSeq"], "received": received, "hash": run["hash"]}


@both
def test_live_and_late(transport, hosted, closed_upstream, watch):
    run_id = started(hosted, closed_upstream)
    live = watch(hosted.url, run_id, transport)
    live.wait_for(HELD)
    assert hosted.run(run_id)["status"] == "running"
    closed_upstream.open.set()
    late = watch(hosted.url, run_id, transport)

    expected = texts(hosted, run_id)
    assert len(expected) == hosted.run(run_id)["lastSeq"] > 20
    for each in (live, late):
        assert each.ended().events == expected
        assert each.end == ended(hosted, run_id, len(expected))
        assert each.said("pause") == []


@both
@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({"after": 4}, "?after=4"),
        ({"after": "4", "types": "all"}, "?after=4&types=all"),
        ({"after": 0}, ""),
        ({"after": -3}, "?after=-3"),
        ({"after": "-999"}, ""),
        ({"after": "tail"}, "?after=tail"),
        ({"types": "all"}, "?types=all"),
        ({"types": ["step_start", "step_complete"]}, "?types=step_start,step_complete"),
        ({"types": "step_complete", "after": -2}, "?types=step_complete&after=-2"),
        ({"stepId": "after"}, "?stepId=after"),
        ({"level": "warn"}, "?level=warn"),
        ({"types": "run_complete"}, "?types=run_complete"),
        ({"stepId": "nobody"}, "?stepId=nobody"),
    ],
)
def test_from_a_cursor_and_filtered(transport, options, query, hosted, finished, watch):
    watching = watch(hosted.url, finished, transport, **options).ended()
    expected = texts(hosted, finished, query)
    assert watching.events == expected
    assert watching.end == ended(hosted, finished, len(expected))


@both
@pytest.mark.parametrize("beyond", [0, 1])
def test_nothing_is_left(transport, beyond, hosted, finished, watch):
    last = hosted.run(finished)["lastSeq"]
    watching = watch(hosted.url, finished, transport, after=last + beyond).ended()
    assert watching.end == ended(hosted, finished, 0)


@both
@pytest.mark.parametrize(
    ("run_id", "options", "status", "says"),
    [
        (None, {"level": "loud"}, 400, "/query/level must be one of debug, info, warn, error"),
        ("nobody-knows", {}, 404, "There is no run 'nobody-knows'."),
        ("nobody-knows", {"wait": "50ms"}, 404, "There is no run 'nobody-knows'."),
        (None, {"after": 99_999}, 409, "there is no event 99999 to continue after"),
    ],
)
def test_a_refusal_stops_it_and_says_why(transport, run_id, options, status, says, hosted, finished, watch):
    error = watch(hosted.url, run_id or finished, transport, **options).ended().error
    assert (error["name"], error["code"], error["status"]) == ("Refused", 4000 + status, status)
    assert says in error["message"]


@pytest.mark.parametrize(
    ("url", "run_id", "options"),
    [("ftp://127.0.0.1", "r", {}), ("127.0.0.1:1", "r", {}), ("http://127.0.0.1", "../x", {})],
)
def test_what_cannot_be_meant_is_a_type_error(url, run_id, options, watch):
    said = watch(url, run_id, **options)
    assert said.client.process.wait(30) != 0
    assert "TypeError" in said.client.errors.read_text()


@both
def test_it_waits_for_a_run_that_does_not_exist_yet(transport, hosted, upstream, watch):
    run_id = f"js-{uuid4()}"
    watching = watch(hosted.url, run_id, transport, wait="60s")
    if transport == "websocket":
        watching.wait_for("socket")
    body = {"runId": run_id, "variables": {"apiUrl": upstream.url}}
    assert hosted.post("/api/v2/workflows/js/execute", body).status == 202
    assert watching.ended().events == texts(hosted, run_id)


@both
def test_it_comes_back_when_the_service_does(transport, tmp_path, closed_upstream, watch):
    with Server(tmp_path, TAILRACE_HTTP_ALLOW="127.0.0.1") as server:
        server.create("js", DEFINITION)
        run_id = started(server, closed_upstream)
        watching = watch(server.url, run_id, transport, pauseMs=50, retries=1_000)
        watching.wait_for(HELD)
        server.kill_hard()
        watching.wait_for('"pause"')
        server.start()
        closed_upstream.open.set()
        expected = texts(server, run_id)
        assert watching.ended().events == expected
        assert watching.end == ended(server, run_id, len(expected))


@both
def test_cut_off_before_its_first_event_it_loses_nothing(transport, relay, waiting, watch):
    watching = watch(relay.url, waiting.id, transport, after="tail", pauseMs=AWAY_S * 1000)
    waiting.miss(relay)
    assert watching.ended().events == waiting.new
    assert len(watching.said("pause")) == 1


@both
def test_leaving_the_loop_closes_and_another_goes_on(transport, hosted, finished, watch):
    watching = watch(hosted.url, finished, transport, leave=5).ended()
    assert watching.events == texts(hosted, finished)
    assert watching.end == ended(hosted, finished, len(watching.events))
    if transport == "websocket":
        first, second = watching.said("socket")
        assert "after=" not in first
        assert "after=5&" in f"{second}&"


@both
@pytest.mark.parametrize(
    ("options", "received"), [({"aborted": "start"}, 0), ({"abort": 3}, 3), ({"leave": 3, "abort": 5}, 5)]
)
def test_an_abort_ends_it_and_nothing_stays_open(
    transport, options, received, hosted, closed_upstream, watch
):
    run_id = started(hosted, closed_upstream)
    watching = watch(hosted.url, run_id, transport, **options).ended()
    assert watching.error["name"] == "AbortError"
    assert len(watching.events) == received


def test_a_slow_reader_holds_no_more_than_its_bound(hosted, upstream, watch):
    """Over WebSocket the connection is given up and taken up again; over SSE nothing more is read."""
    run_id = started(hosted, upstream, lines=30_000)
    run = hosted.finished(run_id, 120)
    expected = texts(hosted, run_id)
    size = sum(map(len, expected))
    assert size > 10_000_000

    slow = {transport: watch(hosted.url, run_id, transport, hold=1) for transport in ("websocket", "sse")}
    slow["websocket"].wait_for("closed")
    slow["sse"].wait_for("event")
    healthy = watch(
        hosted.url, run_id, "sse"
    ).ended()  # as long as that takes, the other could have read, too
    for each in slow.values():
        each.go_on()
    for each in (healthy, *slow.values()):
        assert each.ended().events == expected
        assert each.end["received"] == run["lastSeq"]
    assert slow["sse"].said("bytes")[0] < size / 4
    assert len(slow["websocket"].said("socket")) > 1
    assert slow["websocket"].said("pause") == []


@both
def test_the_raw_text_is_what_is_recorded(transport, hosted, upstream, watch):
    run_id = started(hosted, upstream, big=9_007_199_254_740_993)
    expected = texts(hosted, run_id, "?types=all")
    assert '"big":9007199254740993' in expected[0]  # which JSON.parse would round
    assert sum("é 😀" in text for text in expected) >= 1
    assert watch(hosted.url, run_id, transport, types="all").ended().events == expected
