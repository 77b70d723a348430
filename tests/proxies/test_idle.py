"""Silence: the documented proxies bear it, because the service breaks it in time; without that they would not."""

import pytest

from tests.proxies.documented import NAME
from tests.proxies.idle import LIVED, begin
from tests.proxies.proxy import KINDS, Proxy
from tests.proxies.speaker import Speaker, stored
from tests.proxies.ways import WAYS, Cut
from tests.server import Server

TIMEOUT_S = 240


def test_every_stream_lives_through_70_s_of_silence(idle):
    """On a machine that stood still meanwhile it may try again, alone."""
    said, errors = idle.communicate(timeout=TIMEOUT_S)
    if LIVED not in said:
        with begin() as again:
            said, errors = again.communicate(timeout=TIMEOUT_S)
    assert LIVED in said, errors


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_hears_nothing_cuts_and_the_client_goes_on(tmp_path, kind):
    """The control: with proxies less patient than the service is talkative, every stream is cut."""
    with (
        Server(tmp_path, TAILRACE_HOSTS=NAME, TAILRACE_PING_INTERVAL_S=3600) as server,
        Speaker(server, tmp_path / "silent") as speaker,
        Proxy(kind, tmp_path, server.port, silence_s=3) as proxy,
    ):
        speaker.say("before")
        streams = [way(proxy, speaker.id) for way in WAYS]
        got = [stream.until("before") for stream in streams]
        for stream in streams:
            with stream, pytest.raises(Cut):
                stream.next()
        speaker.end()
        for events, way in zip(got, WAYS, strict=True):
            with way(proxy, speaker.id, after=len(events)) as stream:
                events += stream.rest()
        assert got == [stored(server, speaker.id)] * len(WAYS)
