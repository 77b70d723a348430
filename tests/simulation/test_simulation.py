"""The log under every seed, and the mistakes it must not make under few."""

import pytest

from tests.simulation.__main__ import fault_of
from tests.simulation.mutants import MUTANTS

SEEDS = 2_000
MUTANT_SEEDS = 200


@pytest.mark.parametrize("first", range(0, SEEDS, 250))
def test_no_seed_finds_a_fault(first: int) -> None:
    faults = {seed: fault for seed in range(first, first + 250) if (fault := fault_of(seed))}
    assert not faults


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_catches(name: str) -> None:
    assert any(fault_of(seed, MUTANTS[name]) for seed in range(MUTANT_SEEDS))


def test_a_seed_is_a_history() -> None:
    caught = [fault_of(seed, MUTANTS["replay then subscribe"]) for seed in range(40)]
    assert caught == [fault_of(seed, MUTANTS["replay then subscribe"]) for seed in range(40)]
    assert any(caught)
