"""A service that others can reach: what it wants decided first, TLS of its own, and what a session is then."""

import http.client
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from service.access import EVERYTHING, Authentication, KeyFile
from service.errors import Unauthenticated
from service.front import authentication_of
from service.ops.settings import Settings
from tests.certificate import self_signed
from tests.server import ROOT, Server

W = "/api/v2/workflows"
SHORT = {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}}


def start(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Start a service that is expected to refuse to."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "service", "serve", "--port", "0", *flags],
        env=env | {"PYTHONPATH": str(ROOT)}, cwd=directory, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_what_has_to_be_decided_is_said_all_at_once_and_nothing_is_bound(tmp_path):
    ended = start(tmp_path, "--host", "192.0.2.1")
    assert ended.returncode == 2
    for name in ("TAILRACE_COMMANDS", "TAILRACE_HOST", "TAILRACE_TLS_CERT", "tailrace keys create"):
        assert name in ended.stderr
    assert list(tmp_path.iterdir()) == [], "and nothing is made"


def test_with_all_decided_only_the_address_is_left_to_fail(tmp_path):
    Server(tmp_path).create_key("ann")
    flags = ("--host", "192.0.2.1", "--commands", "", "--behind-proxy", "10.0.0.1")
    ended = start(tmp_path, *flags)
    assert ended.returncode == 1
    assert "cannot listen on 192.0.2.1" in ended.stderr


def test_half_of_tls_and_a_certificate_that_is_none_are_refused(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    assert "TAILRACE_TLS_KEY: is missing" in start(tmp_path, "--tls-cert", "cert.pem").stderr
    ended = start(tmp_path, "--tls-cert", "cert.pem", "--tls-key", "cert.pem")
    assert ended.returncode == 1
    assert "TLS" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate of localhost, signed by itself, with its key in the same file."""
    return self_signed(tmp_path_factory.mktemp("tls"))


class TlsServer(Server):
    """The service with TLS of its own."""

    trust: ssl.SSLContext

    def wait_until_ready(self) -> None:
        pass  # it is asked through TLS below

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.trust)


@pytest.fixture
def server(tmp_path, certificate):
    server = TlsServer(tmp_path, TAILRACE_TLS_CERT=certificate, TAILRACE_TLS_KEY=certificate)
    server.trust = ssl.create_default_context(cafile=certificate)
    server.key = server.create_key("root", "admin")
    with server:
        yield server


def ask(server: TlsServer, method: str, path: str, body=None, **headers: str):
    connection = server.connection()
    try:
        data = None if body is None else json.dumps(body).encode()
        headers |= {} if body is None else {"content-type": "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_tls_of_its_own_serves_http_and_websocket_and_its_sessions_are_for_tls_only(server):
    key = {"authorization": f"Bearer {server.key}"}
    assert ask(server, "POST", W, {"workflowId": "short", "definition": SHORT}, **key)[0] == 201
    run_id = json.loads(ask(server, "POST", f"{W}/short/execute", **key)[2])["runId"]
    status, headers, _ = ask(server, "POST", "/api/v2/session", {"key": server.key})
    assert status == 200
    cookie, *attributes = headers["set-cookie"].split("; ")
    assert cookie.startswith("__Host-tailrace_session=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    url = f"wss://localhost:{server.port}{W}/runs/{run_id}/stream"
    with connect(url, ssl=server.trust, additional_headers={"Cookie": cookie}) as client:
        assert len(list(client)) == 3
        assert client.close_code == 1000
    plain = cookie.replace("__Host-", "")
    assert ask(server, "GET", W, cookie=plain)[0] == 401, "what a plain connection could have set"
    origin = f"https://localhost:{server.port}"
    assert ask(server, "GET", W, origin=origin, **key)[0] == 200
    assert ask(server, "GET", W, origin=origin, cookie=cookie)[0] == 200
    plain = origin.replace("https", "http")  # a page that anybody on the way could have written
    assert ask(server, "GET", W, origin=plain, **key)[0] == 403
    assert ask(server, "GET", W, origin=plain, cookie=cookie)[0] == 403


def test_who_speaks_no_tls_gets_nothing(server):
    connection = http.client.HTTPConnection("localhost", server.port, timeout=10)
    connection.request("GET", "/health")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()


EXPOSED = {
    "behind a proxy": {"TAILRACE_COMMANDS": "*", "TAILRACE_BEHIND_PROXY": "127.0.0.1"},
    "loopback": {},
}  # fmt: skip


@pytest.mark.parametrize("where", EXPOSED)
def test_keys_that_vanish_before_anybody_has_shown_one_let_nobody_in(tmp_path, where):
    server = Server(tmp_path, **EXPOSED[where])
    key = server.create_key("root", "admin")
    with server:
        for _ in range(3):
            assert server.get("/ready").status == 200
        server.db.with_name("tailrace.db.keys").unlink()
        assert server.get(W).status == 401
        assert server.get(W, authorization=f"Bearer {key}").status == 401
        assert server.request("DELETE", f"{W}/x").status == 401
        assert "tailrace.db.keys is not there" in server.diagnostics.read_text()


def test_behind_a_proxy_nobody_is_let_in_without_keys(tmp_path):
    exposed = Authentication(KeyFile(tmp_path / "keys"), exposed=True)
    assert exposed.required
    with pytest.raises(Unauthenticated):
        exposed.renewed(EVERYTHING)
    settings = Settings(db=tmp_path / "t.db", behind_proxy=("127.0.0.1",))
    assert authentication_of(settings).required
    assert authentication_of(Settings(db=tmp_path / "t.db", host="0.0.0.0")).required
    assert not authentication_of(Settings(db=tmp_path / "t.db")).required
