"""The JavaScript client through connections that are cut at random bytes: nothing is lost, doubled or altered."""

import pytest

from tests.clients.javascript import HELD, texts
from tests.clients.test_js_client import ended, started
from tests.clients.torture import CuttingProxy

# Half of the cuts behind a whole chunk: that must be small beside the run, or a few of them are all of it.
CUTS = 500  # over each transport
BYTES_MAX = 12_000
RETRIES = 100  # one in eight is cut before any event


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_cut_again_and_again(transport, hosted, upstream, watch):
    run_id = started(hosted, upstream, lines=3_000)
    expected = texts(hosted, run_id)
    end = ended(hosted, run_id, len(expected))
    pauses = []
    with CuttingProxy(hosted.port, seed=3, bytes_max=BYTES_MAX, cuts_max=CUTS) as proxy:
        while proxy.cuts < CUTS:
            watching = watch(f"http://127.0.0.1:{proxy.port}", run_id, transport, retries=RETRIES).ended()
            assert watching.events == expected
            assert watching.end == end
            pauses += watching.said("pause")
    assert {pause["transport"] for pause in pauses} == {transport}
    assert len(pauses) >= CUTS * 0.9  # the client does not notice a cut behind the run's end


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_cut_while_the_run_goes_on(transport, hosted, closed_upstream, watch):
    run_id = started(hosted, closed_upstream, lines=2_000)
    with CuttingProxy(hosted.port, seed=5, bytes_max=BYTES_MAX, cuts_max=10_000) as proxy:
        watching = watch(f"http://127.0.0.1:{proxy.port}", run_id, transport, retries=RETRIES)
        watching.wait_for(HELD)
        assert hosted.run(run_id)["status"] == "running"
        closed_upstream.open.set()
        watching.ended()
        assert proxy.cuts > 20
    expected = texts(hosted, run_id)
    assert watching.events == expected
    assert watching.end == ended(hosted, run_id, len(expected))
