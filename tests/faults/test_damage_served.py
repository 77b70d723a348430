"""Whatever is damaged, in whichever file: no reader is given an altered event, and who gets less is told."""

from collections import Counter
from contextlib import asynccontextmanager

from service.errors import LogUnavailable
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


def test_a_log_that_does_not_open_is_a_fault_unless_what_was_destroyed_is_needed(in_memory, monkeypatch):
    @asynccontextmanager
    async def refused(directory):
        raise LogUnavailable("it does not open")
        yield

    monkeypatch.setattr("tests.faults.pages.serving", refused)
    faults, figures = pages(in_memory, seed=2, ways=1)
    assert figures["does not open"] == figures["cases"]
    by_owner = Counter(fault.split(",")[0].split()[-1] for fault in faults)
    assert {"events", "places", "sqlite_autoindex_streams_1"} <= set(by_owner)
    assert not {"sqlite_schema", "streams", "types"} & set(by_owner)
    assert figures["faults"] > 0.8 * figures["cases"]
