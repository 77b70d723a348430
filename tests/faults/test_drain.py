"""Who stops the service in order, at whatever moment, fails no run and delays it by no more than the restart."""

from tests.faults.drain import drains


async def test_ten_stops_under_load(tmp_path):
    faults, figures = await drains(tmp_path, cycles=10, seed=1)
    assert faults == []
    assert figures["runs"] >= 10
