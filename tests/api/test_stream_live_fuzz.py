"""A few seeds of live_fuzz.py: random clients of a run while it is written."""

import pytest

from tests.api.live_fuzz import fuzz


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_joins_when_and_however_gets_what_the_final_list_says(server, tmp_path, seed):
    readers = await fuzz(server, tmp_path, seed)
    assert sum(len(reader.connections) for reader in readers) > len(readers), "some have come back"
    assert sum(bool(reader.got) for reader in readers) > len(readers) / 2
