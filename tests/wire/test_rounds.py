"""When connections are looked at: in time, in turns, each for itself."""

import asyncio
import gc
import weakref

import pytest
import uvloop

from service.wire.rounds import TURN_S, Rounds, next_due, rounds


class Seen:
    """Notes when it is looked at, and does ``then``."""

    def __init__(self, then=lambda: None) -> None:
        self.at: list[float] = []
        self.then = then

    def check(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        self.then()


def together(found: Rounds, *those: Seen) -> int:
    """Have all looked at in one turn, which this returns."""
    while len(turns := {found.later(one, 0.05) for one in those}) > 1:
        for turn in turns:
            for one in those:
                found.leave(one, turn)
    return turns.pop()


async def until(done) -> None:
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(TURN_S)


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_each_is_looked_at_once_and_not_before_it_is_due(factory):
    async def some() -> None:
        those, found = [Seen() for _ in range(50)], Rounds()
        began = asyncio.get_running_loop().time()
        for number, one in enumerate(those):
            found.later(one, number / 500)
        await until(lambda: all(one.at for one in those))
        await asyncio.sleep(0.2)
        for number, one in enumerate(those):
            assert len(one.at) == 1
            assert one.at[0] >= began + number / 500 - 0.002  # uvloop counts whole milliseconds

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(some())


async def test_who_leaves_is_not_looked_at_also_by_one_who_is_looked_at_before_it():
    found = Rounds()
    one, two = Seen(lambda: found.leave(two, turn)), Seen(lambda: found.leave(one, turn))
    turn = together(found, one, two)
    gone = Seen()
    found.leave(gone, found.later(gone, 0.05))
    await until(lambda: one.at or two.at)
    await asyncio.sleep(0.2)
    assert len(one.at) + len(two.at) == 1
    assert not gone.at


async def test_who_comes_again_comes_once_a_delay():
    found = Rounds()
    turns: list[int] = []

    def again() -> None:
        turns.append(found.later(one, 0.1, turns[-1]))

    one = Seen(again)
    turns.append(found.later(one, 0.1))
    turns.append(found.later(one, 0.06, turns[-1]))  # sooner than it had said: that alone counts
    await until(lambda: len(turns) >= 6)
    assert all(0.1 <= (b - a) * TURN_S < 0.1 + 2 * TURN_S for a, b in zip(turns[1:], turns[2:], strict=False))
    found.leave(one, turns[-1])


async def test_the_fault_of_one_is_told_and_the_others_are_looked_at():
    told: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said))
    found = Rounds()

    def fail() -> None:
        raise ValueError("of one")

    after = Seen()
    together(found, Seen(fail), after)
    await until(lambda: after.at)
    assert [str(said["exception"]) for said in told] == ["of one"]


def test_every_loop_has_its_own_and_they_go_with_it():
    async def of_this_loop() -> Rounds:
        assert rounds() is rounds()
        return rounds()

    with asyncio.Runner() as runner:
        loop = weakref.ref(runner.get_loop())
        first = runner.run(of_this_loop())
    with asyncio.Runner() as runner:
        assert runner.run(of_this_loop()) is not first
    del runner
    gc.collect()
    assert loop() is None


def test_those_who_were_late_together_are_not_looked_at_together_for_ever():
    again = [next_due(due, 5.0, now=0.4) for due in (0.0, 0.1, 0.2, 0.3)]  # something held them up until 0.4
    assert again == pytest.approx([5.0, 5.1, 5.2, 5.3])
    assert next_due(0.0, 5.0, now=60.0) == 60.0, "long overdue: at once"
    assert next_due(5.0, 0.5, now=1.0) == 1.5, "one that is to be looked at more often has no longer to wait"
