"""The service, or the proxy before it, is restarted: clients are let go, come back, and have everything."""

import http.client

import pytest

from tests.proxies.speaker import stored
from tests.proxies.ways import WAYS, Cut, OverLines, OverServerSentEvents, OverWebSocket, path_of

NAP = {"steps": {"nap": {"type": "wait", "config": {"duration": "1h"}}}}
TOLD = {
    OverWebSocket: "shutting down; resume with after=2",
    OverServerSentEvents: "the body ended",
    OverLines: "shutting down",
}


def test_the_service_restarts(server, proxy):
    server.create("nap", NAP)
    run_id = server.execute("nap")
    got = {}
    streams = {way: way(proxy, run_id) for way in WAYS}
    for way, stream in streams.items():
        got[way] = [stream.next(), stream.next()]
    assert server.stop() == 0
    for way, stream in streams.items():
        with stream, pytest.raises(Cut) as cut:
            stream.next()
        assert TOLD[way] in str(cut.value)
    assert proxy.request("GET", "/health").status in {502, 503}, "from the proxy itself"
    server.start()
    streams = {way: way(proxy, run_id, after=2) for way in WAYS}
    assert proxy.request("POST", f"/api/v2/workflows/runs/{run_id}/cancel").status == 202
    for way, stream in streams.items():
        with stream:
            got[way] += stream.rest()
    events = stored(server, run_id)
    assert len(events) > 2
    assert list(got.values()) == [events] * 3


@pytest.mark.parametrize("way", WAYS)
def test_the_proxy_restarts(server, proxy, speaker, way):
    speaker.say("before")
    with way(proxy, speaker.id) as stream:
        got = stream.until("before")
        proxy.stop()
        with pytest.raises(Cut):
            stream.next()
    speaker.say("meanwhile")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        proxy.request("GET", path_of(speaker.id))
    proxy.start()
    with way(proxy, speaker.id, after=len(got)) as stream:
        got += stream.until("meanwhile")
        speaker.end()
        got += stream.rest()
    assert got == stored(server, speaker.id)
