"""Clients in and out of the live set under every seed, and the mistakes that few seeds must catch."""

import random

import pytest

from tests.simulation.__main__ import fault_of
from tests.simulation.crowds import MUTANTS, Crowds
from tests.simulation.loop import run

SEEDS = 1_000
MUTANT_SEEDS = 200


@pytest.mark.parametrize("first", range(0, SEEDS, 250))
def test_no_seed_finds_a_fault(first):
    faults = {seed: fault for seed in range(first, first + 250) if (fault := fault_of(seed, Crowds))}
    assert not faults


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_catches(name):
    assert any(fault_of(seed, MUTANTS[name]) for seed in range(MUTANT_SEEDS))


def test_much_of_it_is_pushed():
    pushed = 0
    for seed in range(20):
        crowds = Crowds(chance := random.Random(seed))
        run(chance, crowds.run())
        pushed += crowds.pushed
    assert pushed > 100, "hardly anybody was ever parked: this simulates nothing"
