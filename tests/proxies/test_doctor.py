"""tailrace doctor looks through the documented proxies, passwords and all."""

import http.client
import re

import pytest

from tests.cli.test_backup import Cutting
from tests.cli.test_doctor import examined
from tests.proxies.documented import NAME, PASSWORD, USER
from tests.proxies.proxy import KINDS, Proxy
from tests.server import Server


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_behind_a_proxy_that_asks_for_passwords(tmp_path, kind):
    bounds = {"TAILRACE_HOSTS": "127.0.0.1", "TAILRACE_COMMANDS": ""}
    with Server(tmp_path, **bounds) as server, Proxy(kind, tmp_path, server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        ((status, said),) = examined(tmp_path, "--url", url).of("proxy")
        assert (status, "credentials (401)" in said, "TAILRACE_PROXY_PASSWORD" in said) == (
            "warn",
            True,
            True,
        )
        told = examined(tmp_path, "--url", url, TAILRACE_PROXY_PASSWORD=f"{USER}:{PASSWORD}")
        assert told.of("proxy") == []
        assert "WebSockets get through" in told.said("proxy")
        assert PASSWORD not in str(told.findings)
        wrong = examined(tmp_path, "--url", url, TAILRACE_PROXY_PASSWORD=f"{USER}:wrong")
        assert [status for status, _ in wrong.of("proxy")] == ["warn"]


class WithoutPasswords(Proxy):
    """As documented for the service's own keys: without the lines that ask for passwords."""

    without = "auth_basic|http-request auth"

    def start(self) -> None:
        for name in ("tailrace.conf", "haproxy.cfg"):
            if (path := self.directory / name).exists():
                kept = re.sub(rf"(?m)^ *({self.without}).*\n", "", path.read_text())
                path.write_text(kept)
        super().start()

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/health").status == 200
        except (OSError, http.client.HTTPException):
            return False


BEHIND = {
    "TAILRACE_HOSTS": f"127.0.0.1,{NAME}",
    "TAILRACE_BEHIND_PROXY": "127.0.0.1",
    "TAILRACE_COMMANDS": "",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_proxies_hand_on_nothing_made_up(tmp_path, kind):
    server = Server(tmp_path, **BEHIND)
    key = server.create_key("ann", "read")
    with server, WithoutPasswords(kind, tmp_path, server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        told = examined(tmp_path, "--url", url, TAILRACE_KEY=key)
        assert told.of("proxy") == []
        assert "the service knows us as a client of this machine" in told.said("proxy")
        ((status, said),) = examined(tmp_path, "--url", url).of("proxy")
        assert (status, "was not looked at" in said) == ("warn", True)


def test_a_proxy_that_hands_on_what_clients_make_up_is_found(tmp_path):
    server = Server(tmp_path, **BEHIND)
    key = server.create_key("ann", "read")
    with server, Cutting(server.port, None) as careless:
        ((status, said),) = examined(tmp_path, "--url", careless.url, TAILRACE_KEY=key).of("proxy")
        assert (status, "the client made up" in said) == ("fail", True)


class WithoutScheme(WithoutPasswords):
    """As one who forgot what tells the service that clients come by TLS."""

    without = "auth_basic|http-request auth|proxy_set_header X-Forwarded-Proto|http-request set-header X-Forwarded-Proto"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("proxies", "learns"), [(WithoutPasswords, True), (WithoutScheme, False)])
def test_whether_the_service_learns_that_clients_come_by_tls(tmp_path, kind, proxies, learns):
    server = Server(tmp_path, **BEHIND)
    key = server.create_key("ann", "read")
    with server, proxies(kind, tmp_path, server.port, tls=True) as proxy:
        trusted = {"SSL_CERT_FILE": proxy.directory / "tailrace.pem", "TAILRACE_KEY": key}
        told = examined(tmp_path, "--url", f"https://127.0.0.1:{proxy.port}", **trusted)
        found = [(status, "does not learn" in said) for status, said in told.of("proxy")]
        assert found == ([] if learns else [("fail", True)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_whose_certificate_is_for_another_name_is_no_way_in(tmp_path, kind):
    with Server(tmp_path) as server, Proxy(kind, tmp_path, server.port, tls=True) as proxy:
        trusted = {"SSL_CERT_FILE": proxy.directory / "tailrace.pem"}
        told = examined(tmp_path, "--url", f"https://localhost:{proxy.port}", **trusted)
        assert [(status, "not valid for 'localhost'" in said) for status, said in told.of("proxy")] == [
            ("fail", True)
        ]
        assert "answers" not in told.said("proxy")


class Adding(WithoutPasswords):
    """As one who lets the proxy add to what the client says of itself, in the place of setting it."""

    def start(self) -> None:
        for name in ("tailrace.conf", "haproxy.cfg"):
            if (path := self.directory / name).exists():
                text = path.read_text().replace(
                    "set-header X-Forwarded-For %[src]", "add-header X-Forwarded-For %[src]"
                )
                path.write_text(
                    re.sub(r"(X-Forwarded-For +)\$remote_addr", r"\1$proxy_add_x_forwarded_for", text)
                )
        super().start()


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_adds_to_what_clients_make_up_is_found(tmp_path, kind):
    server = Server(tmp_path, **BEHIND)
    key = server.create_key("ann", "read")
    with server, Adding(kind, tmp_path, server.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        ((status, said),) = examined(tmp_path, "--url", url, TAILRACE_KEY=key).of("proxy")
        assert (status, "the client made up" in said) == ("fail", True)
