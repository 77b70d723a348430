"""The service, its upstream and the guide's workflow, as the guide's clients find them."""

import subprocess
from pathlib import Path

import pytest

from scripts.upstream import Upstream
from tests.clients.client import Client, installed
from tests.clients.published import at, block
from tests.server import Server


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


@pytest.fixture(scope="session")
def wscat() -> Path:
    return installed(".cache/wscat/node_modules/.bin/wscat").parent
