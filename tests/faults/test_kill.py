"""Nothing acknowledged is lost, doubled or reordered by kill -9, every run ends, and nothing is left running."""

from tests.faults.kill import kill_cycles


async def test_thirty_kills_under_load(tmp_path):
    faults, figures = await kill_cycles(tmp_path, cycles=30, seed=1)
    assert faults == []
    assert figures["runs"] >= 30
    assert figures["connections"] > figures["runs"]
