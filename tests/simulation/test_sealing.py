"""Sealing beside appends, readers and crashes under every seed, and the mistakes that few seeds must catch."""

import random

import pytest

from tests.simulation.__main__ import fault_of
from tests.simulation.loop import run
from tests.simulation.sealing import MUTANTS, Sealing

SEEDS = 600
MUTANT_SEEDS = 60


@pytest.mark.parametrize("first", range(0, SEEDS, 150))
def test_no_seed_finds_a_fault(first):
    faults = {seed: fault for seed in range(first, first + 150) if (fault := fault_of(seed, Sealing))}
    assert not faults


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_catches(name):
    assert any(fault_of(seed, MUTANTS[name]) for seed in range(MUTANT_SEEDS))


def test_much_of_it_is_read_from_segments():
    sealed = 0
    for seed in range(20):
        sealing = Sealing(chance := random.Random(seed))
        run(chance, sealing.run())
        sealed += sealing.sealed
    assert sealed > 200, "hardly anything was read from segments: this simulates nothing"
