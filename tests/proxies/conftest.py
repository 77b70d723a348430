"""The service behind nginx and behind HAProxy."""

import subprocess

import pytest

from tests.proxies.documented import NAME
from tests.proxies.idle import begin
from tests.proxies.proxy import KINDS, Proxy
from tests.proxies.speaker import Speaker
from tests.server import Server

IDLE = "idle"  # a fixture's name
IDLE_PROCESS = pytest.StashKey[subprocess.Popen]()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("service")
    with Server(
        directory, TAILRACE_HOSTS=NAME, TAILRACE_MAX_WATCHERS_PER_RUN=8, TAILRACE_DRAIN_TIMEOUT_S=0.5
    ) as server:
        yield server


@pytest.fixture(scope="module", params=KINDS)
def proxy(server, tmp_path_factory, request):
    with Proxy(request.param, tmp_path_factory.mktemp("proxy"), server.port) as proxy:
        yield proxy


@pytest.fixture
def speaker(server, tmp_path):
    with Speaker(server, tmp_path / f"speaker-{tmp_path.name}") as speaker:
        yield speaker


# The test that takes longest does nothing but wait: it begins with the session, and is asked at its end.


def pytest_collection_modifyitems(items):
    items.sort(key=waits)


def pytest_collection_finish(session):
    if any(map(waits, session.items)) and not session.config.option.collectonly:
        session.config.stash[IDLE_PROCESS] = begin()


def pytest_unconfigure(config):
    process = config.stash.get(IDLE_PROCESS, None)
    if process is not None:
        process.terminate()
        process.communicate()


def waits(item: pytest.Item) -> bool:
    return IDLE in getattr(item, "fixturenames", ())


@pytest.fixture
def idle(request):
    """The process that began with the session."""
    return request.config.stash[IDLE_PROCESS]
