"""A small share of the load: everybody gets everything, memory stays within its bounds, and all of it returns."""

import pytest
from msgspec.structs import replace

from tests.load.bounds import faults
from tests.load.curve import curve
from tests.load.phases import QUICK, load


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return load(QUICK, tmp_path_factory.mktemp("load"))


def test_everybody_gets_everything_within_bounds_and_all_of_it_returns(found):
    assert list(faults(found, timed=False)) == []
    assert {sample.phase for sample in found.samples} == {
        "unloaded", "+ idle", "+ slow", "all of it", "unloaded again",
    }  # fmt: skip


def test_the_curve_shows_every_panel(found):
    assert curve(found, "a machine").count("<polyline") == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: {"idle_left": found.idle_left - 1}, "idle watchers are left"),
        (lambda found: {"healthy_left": 0}, "healthy watchers are left"),
        (lambda found: {"slow": replace(found.slow, gaps=1)}, "1 gaps"),
        (lambda found: {"idle_kib_each": 60.0}, "an idle watcher takes 60.0 KiB"),
        (lambda found: _at("+ idle", found, missing=1), "events did not come"),
        (lambda found: _at("+ slow", found, rss_bytes=2**30), "RSS came to 1024 MiB"),
        (lambda found: _at("all of it", found, tcp_bytes=2**30), "the kernel holds"),
        (lambda found: {"empty_again": replace(found.empty_again, streams=1)}, "1 streams are open"),
        (lambda found: {"empty_again": replace(found.empty_again, files=99)}, "99 files are open"),
        (lambda found: {"empty_again": replace(found.empty_again, rss_bytes=2**30)}, "RSS is 1024 MiB"),
    ],
)
def test_a_broken_bound_is_said(found, change, said):
    assert said in "\n".join(faults(replace(found, **change(found)), timed=False))


def _at(phase, found, **change):
    return {
        "samples": [
            replace(sample, **change) if sample.phase == phase else sample for sample in found.samples
        ]
    }
