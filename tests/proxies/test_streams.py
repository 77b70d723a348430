"""Every way to watch a run, through the documented nginx and HAProxy: nothing is held back, changed or lost."""

import threading
import time

import pytest

from tests.proxies.speaker import stored
from tests.proxies.ways import WAYS, OverServerSentEvents, path_of


def test_the_documented_file_is_taken_without_a_warning(proxy):
    assert proxy.output.read_text() == ""


@pytest.mark.parametrize("way", WAYS)
def test_each_event_arrives_before_the_next_one_happens(server, proxy, speaker, way):
    """The step prints a line when the one before has come through: a proxy that buffers would wait for ever."""
    with way(proxy, speaker.id) as stream:
        got = []
        for number in range(5):
            speaker.say(f"line {number}")
            got += stream.until(f"line {number}")
        speaker.end()
        got += stream.rest()
    assert got == stored(server, speaker.id)


@pytest.mark.parametrize("way", WAYS)
def test_a_finished_run_comes_in_full(server, proxy, way):
    step = {"type": "command", "config": {"command": "seq", "args": ["1", "20000"]}}
    server.create("count", {"steps": {"count": step}})
    run_id = server.execute("count")
    server.finished(run_id)
    with way(proxy, run_id) as stream:
        got = stream.rest()
    assert len(got) > 20_000
    assert got == stored(server, run_id)


@pytest.mark.parametrize("way", WAYS)
def test_a_client_goes_on_where_it_was(server, proxy, speaker, way):
    speaker.say("one")
    with way(proxy, speaker.id) as stream:
        got = stream.until("one")
    speaker.say("two")
    with way(proxy, speaker.id, after=len(got)) as stream:
        got += stream.until("two")
        speaker.end()
        got += stream.rest()
    assert got == stored(server, speaker.id)


def test_a_browser_that_has_all_is_told_not_to_come_back(server, proxy, speaker):
    speaker.end()
    last = len(stored(server, speaker.id))
    answer = proxy.request("GET", path_of(speaker.id), accept="text/event-stream", last_event_id=str(last))
    assert (answer.status, answer.body) == (204, b"")


def test_a_long_poll_is_answered_when_something_happens(proxy, speaker):
    speaker.say("one")
    with OverServerSentEvents(proxy, speaker.id) as stream:
        last = len(stream.until("one"))
    answers = []
    path = f"/api/v2/workflows/runs/{speaker.id}/events?after={last}&wait=30s"
    poll = threading.Thread(target=lambda: answers.append(proxy.request("GET", path)), daemon=True)
    poll.start()
    speaker.say("two")
    poll.join(60)
    (answer,) = answers
    assert [event["payload"]["message"] for event in answer.json["data"]] == ["two"]


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_leaves_is_noticed(proxy, speaker, way):
    """The eighth and last place of a run is free again once the proxy has told the service."""
    speaker.say("one")
    streams = [way(proxy, speaker.id) for _ in range(8)]
    for stream in streams:
        stream.until("one")
    refused = proxy.request("GET", path_of(speaker.id))
    assert (refused.status, refused.headers["retry-after"]) == (429, "5")
    assert refused.headers["content-type"] == "application/problem+json"
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 12  # the comments that tell it at last come after 15 s of silence
    while (response := proxy.sent("GET", path_of(speaker.id))).status == 429:
        response.close()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with response:
        assert response.status == 200
