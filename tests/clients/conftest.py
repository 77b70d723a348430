"""The service, its upstream and the guide's workflow, as the guide's clients find them."""

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from scripts.upstream import Upstream
from tests.clients.between import Relay
from tests.clients.client import PAGE_TIMEOUT_MS, Client, installed
from tests.clients.javascript import DEFINITION, watcher
from tests.clients.published import at, block
from tests.clients.waiting import Waiting
from tests.server import Server

CHROMIUM = "/usr/bin/chromium"
QUIET = ("--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync")


@pytest.fixture(scope="session")
def upstream():
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def server(tmp_path_factory, upstream):
    """A service that has the guide's workflow, created by the guide's own words."""
    with Server(tmp_path_factory.mktemp("clients"), TAILRACE_HTTP_ALLOW="127.0.0.1") as server:
        create = at(block("bash", '"workflowId"'), server.port, upstream=upstream.url)
        subprocess.run(["bash", "-c", create], check=True, capture_output=True)
        yield server


@pytest.fixture
def closed_upstream(upstream):
    """The upstream, keeping whoever asks waiting until ``open`` is set."""
    upstream.open.clear()
    yield upstream
    upstream.open.set()


@pytest.fixture
def client(tmp_path):
    """Start programs, and end those that are left."""
    started: list[Client] = []

    def start(*command: str, env: dict[str, str] | None = None) -> Client:
        started.append(Client(command, env or {}, tmp_path / f"errors-{len(started)}"))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    yield page
    page.close()


@pytest.fixture(scope="session")
def wscat() -> Path:
    return installed(".cache/wscat/node_modules/.bin/wscat").parent


@pytest.fixture(scope="session")
def hosted(tmp_path_factory, upstream):
    """A service that may be reached through proxies, with the workflow ``js``."""
    settings = {"TAILRACE_HTTP_ALLOW": "127.0.0.1", "TAILRACE_HOSTS": "127.0.0.1"}
    with Server(tmp_path_factory.mktemp("hosted"), **settings) as server:
        server.create("js", DEFINITION)
        yield server


@pytest.fixture
def relay(hosted):
    with Relay(hosted.port) as relay:
        yield relay


@pytest.fixture
def waiting(hosted, tmp_path):
    """A run that waits until the test lets it go on."""
    waiting = Waiting(hosted, tmp_path)
    yield waiting
    waiting.let_go()


@pytest.fixture(scope="session")
def client_file(tmp_path_factory, hosted) -> Path:
    """The JavaScript client as the service gives it, saved as the README says."""
    path = tmp_path_factory.mktemp("js") / "tailrace.mjs"
    path.write_bytes(hosted.get("/client.js").body)
    return path


@pytest.fixture
def watch(client, client_file):
    """Start watches in Node."""
    return watcher(client, client_file)


@pytest.fixture(scope="module")
def browser():
    assert Path(CHROMIUM).exists(), "chromium is not there; scripts/test installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *QUIET], headless=True
        )
        yield browser
        browser.close()
