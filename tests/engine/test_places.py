"""Places: bounded, in turn, and never free while somebody waits who knows nothing of it."""

from service.engine.places import Places


class Waiter:
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_no_more_are_taken_than_there_are_and_who_waits_is_woken_in_turn():
    places, first, second = Places(2), Waiter(), Waiter()
    assert places.take(2, lambda: None) == 2
    assert places.take(1, first.wake) == 0
    assert places.take(1, second.wake) == 0
    places.give_back(1)
    assert (first.woken, second.woken) == (1, 0)


def test_who_is_woken_and_ends_without_taking_its_place_passes_it_on():
    places, gone, waiting = Places(1), Waiter(), Waiter()
    assert places.take(1, lambda: None) == 1
    assert places.take(1, gone.wake) == 0
    assert places.take(1, waiting.wake) == 0
    places.give_back(1)
    assert (gone.woken, waiting.woken) == (1, 0)
    places.forget(gone.wake)  # as a runner does that ends: it was cancelled meanwhile
    places.give_back(0)
    assert waiting.woken == 1
