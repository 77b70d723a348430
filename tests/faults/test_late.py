"""One run of fifty late joiners who lose their connections: the hash of each stream is that of the run."""

from tests.faults.late import JOINERS, late_joiners


async def test_whoever_joins_when_has_the_same_stream(tmp_path):
    faults, figures = await late_joiners(tmp_path, seed=1, frames=1)
    assert faults == []
    assert figures["frames"] > 100 * JOINERS
    assert figures["connections"] > 2 * JOINERS
