"""Whatever is damaged, in whichever file: no reader is given an altered event, and who gets less is told."""

from tests.faults.damage import damages
from tests.faults.pages import pages

CASES = 100


def test_no_damage_is_served(in_memory):
    faults, figures = damages(in_memory, seed=1, count=CASES)
    assert faults == []
    assert figures["whole"] > CASES, "one run's damage is that run's"
    assert figures["damaged"] > 0


def test_a_destroyed_page_is_not_the_end_of_the_others(in_memory):
    faults, figures = pages(
        in_memory, seed=2, ways=1, chosen=lambda number, owner: owner != "events" or number % 20 == 5
    )
    assert faults == []
    assert figures["whole"] > figures["cases"]
    assert figures["damaged"] > 0
