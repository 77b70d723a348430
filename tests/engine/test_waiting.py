"""Turns of runs: nobody's thousand runs keep another user's from beginning."""

from service.engine.waiting import Waiting


def begun(waiting: Waiting) -> list[str]:
    """Begin all whose turn it is now."""
    found = []
    while (run_id := waiting.next()) is not None:
        waiting.begin(run_id)
        found.append(run_id)
    return found


def test_one_users_runs_leave_a_tenth_to_others():
    waiting = Waiting(10)
    for number in range(20):
        waiting.add(f"a{number}", "ann")
    assert begun(waiting) == [f"a{number}" for number in range(9)]
    waiting.add("b0", "bob")
    waiting.add("b1", "bob")
    assert begun(waiting) == ["b0"]
    waiting.end("a3")
    assert begun(waiting) == ["b1"], "who has fewest at work is next"
    waiting.end("a4")
    waiting.end("b0")
    assert begun(waiting) == ["a9", "a10"]
    assert (len(waiting), "a11" in waiting, "a10" in waiting) == (9, True, False)


def test_without_names_all_places_are_taken_in_the_order_of_arrival():
    waiting = Waiting(3)
    for number in range(5):
        waiting.add(f"r{number}", None)
    assert begun(waiting) == ["r0", "r1", "r2"]
    waiting.begin("r4")  # it is only going to end
    waiting.end("r0")
    assert begun(waiting) == []
    waiting.end("r1")
    assert begun(waiting) == ["r3"]
    assert waiting.user("r3") is None
