"""The real service, shared by the tests of one file: each takes ids of its own."""

import pytest

from tests.api.secured import JWT, SECRET, House
from tests.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    directory = tmp_path_factory.mktemp("access")
    (directory / "jwt").write_text(SECRET)
    server = Server(directory, TAILRACE_JWT_KEY_FILE=directory / "jwt", TAILRACE_DRAIN_TIMEOUT_S=0, **JWT)
    house = House(server)
    with server:
        house.prepare()
        yield house
