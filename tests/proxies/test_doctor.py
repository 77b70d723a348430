"""tailrace doctor looks through the documented proxies, passwords and all."""

import pytest

from tests.cli.test_doctor import examined
from tests.proxies.documented import PASSWORD, USER
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
