"""Limits, each at its edge: over it 429 with Retry-After, or 4429, and nobody else notices."""

import time
from collections import Counter
from contextlib import ExitStack
from itertools import cycle

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.server import Server

W = "/api/v2/workflows"
LONG = {"steps": {"a": {"type": "wait", "config": {"duration": "10m"}}}}
SHORT = {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}}


@pytest.fixture
def house(tmp_path):
    """Return a function that starts a service with limits, behind a proxy, with keys of ann, bob and root."""
    with ExitStack() as stack:

        def start(**limits: int) -> Server:
            server = Server(
                tmp_path, TAILRACE_BEHIND_PROXY="127.0.0.0/8", TAILRACE_COMMANDS="*", TAILRACE_DRAIN_TIMEOUT_S=0,
                **{f"TAILRACE_{name.upper()}": value for name, value in limits.items()},
            )  # fmt: skip
            server.keys = {name: server.create_key(name, rights) for name, rights in
                           (("ann", "read,run"), ("bob", "read,run"), ("root", "admin"))}  # fmt: skip
            stack.enter_context(server)
            server.key = server.keys["root"]
            server.create("long", LONG)
            server.create("short", SHORT)
            return server

        yield start


def watch(server: Server, run_id: str, who: str = "root", address: str = "192.0.2.1", query: str = ""):
    headers = {"Authorization": f"Bearer {server.keys[who]}", "X-Forwarded-For": address}
    return connect(f"{server.ws_url}{W}/runs/{run_id}/stream{query}", additional_headers=headers)


def refused(server: Server, run_id: str, who: str = "root", address: str = "192.0.2.1") -> int:
    """Return the seconds after which to try again."""
    with pytest.raises(InvalidStatus) as caught:
        watch(server, run_id, who, address)
    response = caught.value.response
    assert response.status_code == 429
    with (
        pytest.raises(ConnectionClosedError) as closed,
        watch(server, run_id, who, address, "?errors=close") as ws,
    ):
        ws.recv()
    assert closed.value.rcvd.code == 4429
    answer = server.get(
        f"{W}/runs/{run_id}/stream",
        authorization=f"Bearer {server.keys[who]}",
        **{"x-forwarded-for": address},
    )
    assert (answer.status, answer.json["title"]) == (429, "Too Many Requests")
    return int(response.headers["retry-after"])


def execute(server: Server, who: str, workflow: str = "long"):
    return server.post(f"{W}/{workflow}/execute", authorization=f"Bearer {server.keys[who]}")


def test_streams_of_one_user(house):
    server = house(max_watchers_per_user=2)
    run_id = execute(server, "ann").json["runId"]
    with watch(server, run_id, "ann"), watch(server, run_id, "ann", "192.0.2.2"):
        assert refused(server, run_id, "ann", "192.0.2.3") == 5
        with watch(server, run_id, "root"):
            pass
    with watch(server, run_id, "ann"):
        pass


def test_who_may_not_see_a_run_takes_no_place_of_its_readers_and_learns_nothing(house):
    server = house(max_watchers_per_run=2)
    run_id = execute(server, "ann").json["runId"]
    bob = {"authorization": f"Bearer {server.keys['bob']}"}
    with watch(server, run_id, "bob", query="?wait=300s"), watch(server, run_id, "bob", query="?wait=300s"):
        rows = server.get("/api/v2/streams", **bob).json["data"]
        assert [(row["phase"], row["lastSeq"], row["lag"]) for row in rows] == [("opening", None, None)] * 2
        with watch(server, run_id, "ann"), watch(server, run_id, "ann"):
            assert refused(server, run_id, "ann") == 5
            answers = [server.get(f"{W}/runs/{each}/stream", **bob) for each in (run_id, "nobody")]
            assert [answer.status for answer in answers] == [404, 404]
    with watch(server, run_id, "ann"), watch(server, run_id, "ann"):
        pass


def test_a_run_that_fills_up_while_somebody_waits_for_it(house):
    server = house(max_watchers_per_run=1)
    with watch(server, "later", "ann", query="?wait=60s") as first, ExitStack() as stack:
        second = stack.enter_context(watch(server, "later", "ann", query="?wait=60s"))
        body = {"runId": "later"}
        key = {"authorization": f"Bearer {server.keys['ann']}"}
        assert server.post(f"{W}/long/execute", body, **key).status == 202
        first.recv()
        with pytest.raises(ConnectionClosedError) as closed:
            second.recv()
        assert closed.value.rcvd.code == 4429


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1")],
)
def test_streams_of_one_address(house, first, same, other):
    server = house(max_watchers_per_ip=1)
    run_id = execute(server, "ann").json["runId"]
    with watch(server, run_id, "ann", first):
        assert refused(server, run_id, "root", same) == 5
        with watch(server, run_id, "ann", other):
            pass
        with watch(server, run_id, "ann", "127.0.0.1"), watch(server, run_id, "ann", "::1"):
            pass


def test_how_fast_streams_are_begun(house):
    server = house(max_stream_starts_per_minute=3)
    run_id = execute(server, "ann").json["runId"]
    for number in range(3):
        with watch(server, run_id, "ann", f"192.0.2.{number}"):
            pass
    assert 1 <= refused(server, run_id, "ann", "192.0.2.9") <= 20
    with watch(server, run_id, "root", "192.0.2.9"):
        pass


def test_how_fast_streams_are_begun_at_one_address(house):
    server = house(max_stream_starts_per_minute=3)
    run_id = execute(server, "ann").json["runId"]
    for number in range(3):
        with watch(server, run_id, ("ann", "root")[number % 2], "192.0.2.1"):
            pass
    assert 1 <= refused(server, run_id, "bob", "192.0.2.1") <= 20
    with watch(server, run_id, "ann", "192.0.2.2"):
        pass


def until_429(ask, most: int) -> int:
    """Return how often ``ask`` was not refused with 429; the allowance grows meanwhile."""
    began = time.monotonic()
    for done in range(2 * most):
        if (answer := ask()).status == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert most <= done <= most + (time.monotonic() - began) * most / 60 + 1
            return done
    raise AssertionError("never refused")


def test_how_often_one_user_and_one_address_log_in_and_out(house):
    server = house()

    server.key, cookies = None, []

    def log_in(who: str, address: str):
        body, headers = {"key": server.keys[who]}, {"x-forwarded-for": address}
        answer = server.request("POST", "/api/v2/session", body, headers)
        if answer.status == 200:
            cookies.append(answer.headers["set-cookie"].partition(";")[0])
        return answer

    def log_out(address: str):
        headers = {"cookie": cookies.pop(), "x-forwarded-for": address}
        return server.request("DELETE", "/api/v2/session", None, headers)

    addresses = (f"198.51.100.{number}" for number in range(255))
    assert until_429(lambda: log_in("ann", next(addresses)), 60)
    both = cycle(["bob", "root"])
    assert until_429(lambda: log_in(next(both), "192.0.2.1"), 60)
    assert log_in("root", "192.0.2.2").status == 200
    assert until_429(lambda: log_out("192.0.2.3"), 60)
    assert log_out("192.0.2.4").status == 204


def test_wrong_credentials_of_one_address(house):
    server = house()
    server.key = None

    def at_the_gate(address: str = "192.0.2.1"):
        return server.get(W, authorization="Bearer nobody's", **{"x-forwarded-for": address})

    def at_the_login(address: str = "192.0.2.2"):
        return server.request("POST", "/api/v2/session", {"key": "nobody's"}, {"x-forwarded-for": address})

    for ask, address in ((at_the_gate, "192.0.2.1"), (at_the_login, "192.0.2.2")):
        assert until_429(ask, 120)
        key = f"Bearer {server.keys['ann']}"
        assert server.get(W, authorization=key, **{"x-forwarded-for": address}).status == 200
        assert ask("192.0.2.3").status == 401
        assert {ask("127.0.0.1").status for _ in range(130)} == {401}, "nobody is counted as this machine"


def test_how_fast_runs_are_started(house):
    server = house(max_executes_per_minute=2)
    assert [execute(server, "ann", "short").status for _ in range(3)] == [202, 202, 429]
    answer = execute(server, "ann", "short")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert execute(server, "bob", "short").status == 202


def test_how_long_the_definitions_of_one_user_take_to_be_checked(house):
    server = house(max_check_seconds_per_minute=1)
    eve, root = (f"Bearer {server.create_key(name, 'write')}" for name in ("eve", "ann"))
    costly = {"steps": [{"id": f"s{n}", **SHORT["steps"]["a"], "when": "!" * 90 + "a"} for n in range(900)]}
    statuses = []
    while 429 not in statuses:
        assert len(statuses) < 500
        answer = server.post(f"{W}/validate", costly, authorization=eve)
        statuses.append(answer.status)
    assert statuses.count(200) >= 2
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    for path in (f"{W}/validate", W):
        assert server.post(path, SHORT, authorization=eve).status == 429
    assert server.request("PUT", f"{W}/short", SHORT, {"authorization": eve}).status == 429
    assert server.post(f"{W}/validate", costly, authorization=root).status == 200


@pytest.mark.parametrize("bound", ["max_runs", "max_parallel_steps"])
def test_one_users_work_does_not_keep_anothers_from_beginning(house, bound):
    server = house(**{bound: 10})
    for _ in range(12):
        assert execute(server, "ann").status == 202
    run_id = execute(server, "bob", "short").json["runId"]
    assert server.finished(run_id)["status"] == "success"
    statuses = Counter(
        row["status"] for row in server.get(f"{W}/runs").json["data"] if row["runId"] != run_id
    )
    if bound == "max_runs":
        assert statuses == {"running": 9, "queued": 3}


def test_unfinished_runs_of_one_user_and_of_all(house):
    server = house(max_unfinished_runs_per_user=2, max_unfinished_runs=3)
    first, second = (execute(server, "ann").json["runId"] for _ in range(2))
    assert execute(server, "ann").status == 429
    again = server.post(f"{W}/long/execute", {"runId": first}, authorization=f"Bearer {server.keys['ann']}")
    assert again.status == 202, "a request that is repeated is none more"
    assert execute(server, "bob").status == 202
    answer = execute(server, "bob")
    assert (answer.status, answer.headers["retry-after"]) == (429, "5")
    assert len(server.get(f"{W}/runs").json["data"]) == 3, "what was refused is not there"
    server.post(f"{W}/runs/{second}/cancel")
    server.finished(second)
    deadline_tries = 200
    while execute(server, "ann").status == 429:
        deadline_tries -= 1
        assert deadline_tries
    assert execute(server, "ann").status == 429


def test_unfinished_runs_are_counted_again_after_a_restart(house):
    server = house(max_unfinished_runs_per_user=2)
    for _ in range(2):
        execute(server, "ann")
    server.restart()
    assert execute(server, "ann").status == 429
    assert execute(server, "bob").status == 202


def test_short_runs_without_end_are_never_too_many(house):
    server = house(max_unfinished_runs_per_user=50)
    for _ in range(30):
        for answer in [execute(server, "ann", "short") for _ in range(5)]:
            assert answer.status == 202
            server.finished(answer.json["runId"])


def test_events_of_one_run_a_second(house):
    server = house(max_events_per_s_per_run=200)
    said = "i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done"
    server.create(
        "talks", {"steps": {"a": {"type": "command", "config": {"command": "sh", "args": ["-c", said]}}}}
    )
    quick = server.execute("short")
    run = server.finished(server.execute("talks"), 60)
    assert run["status"] == "success"
    # A second's worth at once, then 200 a second; the last batch, of 250 at most, is paid for after the end.
    assert run["duration"] >= 1_000 * (1_000 - 200 - 250) // 200
    assert server.finished(quick)["duration"] < 2_000
    events = server.get(f"{W}/runs/{run['runId']}/logs?limit=1000&stepId=a").json["data"]
    lines = [event["payload"]["message"] for event in events if event["payload"]["message"].isdigit()]
    assert lines == [str(number) for number in range(len(lines))], "none is lost"
