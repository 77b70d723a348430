"""Whatever is damaged, in whichever file: no reader is given an altered event, and who gets less is told."""

from tests.faults.damage import damages

CASES = 100


def test_no_damage_is_served(in_memory):
    faults, figures = damages(in_memory, seed=1, count=CASES)
    assert faults == []
    assert figures["whole"] > CASES, "one run's damage is that run's"
    assert figures["damaged"] > 0
