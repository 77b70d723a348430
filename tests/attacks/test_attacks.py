"""The service is attacked in every way there is, in CI's measure, and nothing comes of it."""

import pytest

from tests.attacks.attacks import ATTACKS


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_comes_of_it(name: str) -> None:
    attack = ATTACKS[name]
    if reason := attack.why_not():
        pytest.skip(reason)
    assert attack.run(attack.ci, 1) == []
