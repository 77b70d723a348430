"""The documented lines for TLS: the same streams over wss and https, and over HTTP/2, which browsers speak then."""

import json

import pytest

from tests.clients.client import Client
from tests.proxies.documented import NAME, PASSWORD, USER
from tests.proxies.proxy import KINDS, Proxy
from tests.proxies.speaker import stored
from tests.proxies.ways import WAYS, path_of


@pytest.fixture(scope="module", params=KINDS)
def proxy(server, tmp_path_factory, request):
    with Proxy(request.param, tmp_path_factory.mktemp("proxy"), server.port, tls=True) as proxy:
        yield proxy


@pytest.mark.parametrize("way", WAYS)
def test_each_event_arrives_before_the_next_one_happens(server, proxy, speaker, way):
    with way(proxy, speaker.id) as stream:
        got = []
        for number in range(3):
            speaker.say(f"line {number}")
            got += stream.until(f"line {number}")
        speaker.end()
        got += stream.rest()
    assert got == stored(server, speaker.id)


def test_http_2_carries_each_event_at_once(server, proxy, speaker, tmp_path):
    url = f"https://{proxy.authority}{path_of(speaker.id)}"
    curl = Client(
        ["curl", "--http2", "--no-buffer", "--silent", "--show-error", "--fail", "--dump-header", str(tmp_path / "head"),
         "--noproxy", "*", "--cacert", str(proxy.directory / "tailrace.pem"), "--user", f"{USER}:{PASSWORD}",
         "--resolve", f"{NAME}:{proxy.port}:127.0.0.1", "--header", f"Origin: https://{proxy.authority}", url],
        {}, tmp_path / "errors",
    )  # fmt: skip
    try:
        for number in range(3):
            speaker.say(f"line {number}")
            curl.wait_for(f'"message":"line {number}"')
        speaker.end()
        got = [line.encode() for line in curl.ended() if line]
    finally:
        curl.end()
    assert (tmp_path / "head").read_text().startswith("HTTP/2 200")
    assert got == stored(server, speaker.id)
    assert json.loads(got[-1])["type"] == "step_complete"
