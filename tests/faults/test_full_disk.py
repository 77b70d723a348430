"""A full disk stops accepting and nothing else, and work resumes as soon as there is space."""

import pytest

from tests.faults.full_disk import full_disks

POSITIONS = 4


def test_a_full_disk_refuses_reads_on_and_recovers(tmp_path):
    found = full_disks(tmp_path, seed=1, positions=POSITIONS)
    if found is None:
        pytest.skip("may not mount a tmpfs: run as root")
    faults, figures = found
    assert faults == []
    assert figures["felt"] == POSITIONS, "it was never full"
