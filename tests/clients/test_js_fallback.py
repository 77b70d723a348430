"""The JavaScript client in Node where WebSockets do not open: it goes on over server-sent events, and says so."""

import socket

import pytest

from tests.clients.between import NoUpgrades
from tests.clients.javascript import HELD, texts
from tests.clients.test_js_client import ended, started
from tests.clients.torture import CuttingProxy
from tests.server import Server


def test_where_upgrades_are_refused(hosted, closed_upstream, watch):
    run_id = started(hosted, closed_upstream)
    with NoUpgrades(hosted.port) as proxy:
        watching = watch(proxy.url, run_id, "auto")
        watching.wait_for(HELD)
        closed_upstream.open.set()
        expected = texts(hosted, run_id)
        assert watching.ended().events == expected
    assert watching.end == ended(hosted, run_id, len(expected))
    assert [pause["transport"] for pause in watching.said("pause")] == ["websocket", "websocket"]
    assert [head.split(" ")[0] for head in proxy.heads] == ["GET"] * 3


def test_where_upgrades_are_never_answered(hosted, upstream, watch):
    run_id = started(hosted, upstream)
    expected = texts(hosted, run_id)
    with NoUpgrades(hosted.port, silent=True) as proxy:
        watching = watch(proxy.url, run_id, "auto", hurry=20, hurryFrom=0, retries=1_000).ended()
    assert watching.events == expected
    assert [pause["reason"] for pause in watching.said("pause")][:2] == ["nothing came for 10 s"] * 2
    assert "GET /api" in proxy.heads[-1]


def test_who_wants_a_websocket_gets_no_other(hosted, upstream, watch):
    run_id = started(hosted, upstream)
    with NoUpgrades(hosted.port) as proxy:
        watching = watch(proxy.url, run_id, "websocket", retries=4).ended()
    assert watching.error["name"] == "Unreachable"
    assert [pause["transport"] for pause in watching.said("pause")] == ["websocket"] * 4


def test_while_nobody_answers_both_are_tried(watch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    watching = watch(f"http://127.0.0.1:{port}", "r", "auto", retries=6).ended()
    assert watching.error["name"] == "Unreachable"
    assert [pause["transport"] for pause in watching.said("pause")] == ["websocket", "websocket", "sse"] * 2


def test_a_refusal_that_no_close_code_tells_is_told_over_sse(tmp_path, watch):
    """A service that does not know the name by which it was called says so with a status alone."""
    with Server(tmp_path) as server, CuttingProxy(server.port, seed=1, bytes_max=1, cuts_max=0) as proxy:
        watching = watch(f"http://127.0.0.1:{proxy.port}", "r", "auto").ended()
    assert (watching.error["name"], watching.error["status"]) == ("Refused", 421)
    assert "TAILRACE_HOSTS can name it" in watching.error["message"]


@pytest.mark.parametrize("transport", ["auto", "sse"])
def test_without_a_websocket_class_it_is_sse(transport, hosted, upstream, watch):
    run_id = started(hosted, upstream)
    watching = watch(hosted.url, run_id, transport).ended()
    assert watching.events == texts(hosted, run_id)
    assert bool(watching.said("socket")) == (transport == "auto")
