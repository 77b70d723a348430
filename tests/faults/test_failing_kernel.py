"""The kernel fails the running service's writes for a while: every answer is true, and it recovers by itself."""

import pytest

from tests.faults.failing_kernel import kernel_faults

FAULTS = 5


def test_the_service_says_what_it_knows_and_recovers(tmp_path):
    found = kernel_faults(tmp_path, seed=1, count=FAULTS)
    if found is None:
        pytest.skip("needs strace, and the right to trace another process")
    faults, figures = found
    assert faults == []
    assert figures["felt"] > 0
    assert figures["accepted"] >= FAULTS
