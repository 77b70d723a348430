"""Places: bounded, in turn, and never free while somebody waits who knows nothing of it."""

from service.engine.places import Places


class Waiter:
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_no_more_are_taken_than_there_are_and_who_waits_is_woken_in_turn():
    places, first, second = Places(2), Waiter(), Waiter()
    assert places.take(None, 2, lambda: None) == 2
    assert places.take(None, 1, first.wake) == 0
    assert places.take(None, 1, second.wake) == 0
    places.give_back(None, 1)
    assert (first.woken, second.woken) == (1, 0)


def test_who_is_woken_and_ends_without_taking_its_place_passes_it_on():
    places, gone, waiting = Places(1), Waiter(), Waiter()
    assert places.take(None, 1, lambda: None) == 1
    assert places.take(None, 1, gone.wake) == 0
    assert places.take(None, 1, waiting.wake) == 0
    places.give_back(None, 1)
    assert (gone.woken, waiting.woken) == (1, 0)
    places.forget(None, gone.wake)  # as a runner does that ends: it was cancelled meanwhile
    places.give_back(None, 0)
    assert waiting.woken == 1


def test_users_take_turns_and_the_last_tenth_is_for_others():
    places, ann, bob = Places(10), [Waiter() for _ in range(5)], Waiter()
    assert places.take("ann", 12, ann[0].wake) == 9
    assert places.take("bob", 1, bob.wake) == 1, "though nobody has given one back"
    for waiter in ann[1:]:
        assert places.take("ann", 1, waiter.wake) == 0
    assert places.take("bob", 1, bob.wake) == 0
    places.give_back("ann", 1)
    assert (bob.woken, [waiter.woken for waiter in ann]) == (1, [0] * 5), "who has fewest, whoever came first"
    assert places.take("bob", 1, bob.wake) == 1
    places.give_back("bob", 2)
    assert [waiter.woken for waiter in ann] == [1, 0, 0, 0, 0], "up to their nine tenths"
    assert places.take("ann", 1, ann[0].wake) == 1
    places.give_back("ann", 9)
    assert [waiter.woken for waiter in ann] == [1] * 5


def test_who_is_not_asked_for_a_name_may_have_all():
    assert Places(10).take(None, 12, lambda: None) == 10
    assert Places(1).take("ann", 1, lambda: None) == 1
