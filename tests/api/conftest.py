"""The real service, shared by the tests of one file: each takes ids of its own."""

import pytest

from tests.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("service")) as running:
        yield running
