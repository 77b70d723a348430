"""Tickets: once, for one run, for half a minute, and only so many."""

import pytest

from service.access import Grant
from service.access import tickets as module
from service.access.tickets import TICKETS_PER_USER_MAX, Tickets
from service.errors import Throttled, Unauthenticated

ANN = Grant("ann", frozenset({"read"}))


def test_a_ticket_is_good_once_for_its_run():
    tickets = Tickets()
    first = tickets.issue(ANN, "r1", 0.0)
    assert tickets.redeem(first.text, "r1", 29.9) is ANN
    with pytest.raises(Unauthenticated):
        tickets.redeem(first.text, "r1", 29.9)


def test_a_ticket_of_another_run_is_used_up_by_trying():
    tickets = Tickets()
    ticket = tickets.issue(ANN, "r1", 0.0)
    for run_id in ("r2", "r1"):
        with pytest.raises(Unauthenticated):
            tickets.redeem(ticket.text, run_id, 1.0)


def test_a_ticket_that_is_too_old_is_worth_nothing():
    tickets = Tickets()
    ticket = tickets.issue(ANN, "r1", 0.0)
    with pytest.raises(Unauthenticated):
        tickets.redeem(ticket.text, "r1", 30.0)


def test_only_so_many_are_out_and_old_ones_make_room():
    tickets = Tickets()
    for _ in range(TICKETS_PER_USER_MAX):
        last = tickets.issue(ANN, "r1", 0.0)
    with pytest.raises(Throttled):
        tickets.issue(ANN, "r1", 1.0)
    assert tickets.issue(Grant("bob", frozenset()), "r1", 1.0)
    tickets.redeem(last.text, "r1", 1.0)
    assert tickets.issue(ANN, "r1", 1.0)
    with pytest.raises(Throttled):
        tickets.issue(ANN, "r1", 1.0)
    assert tickets.issue(ANN, "r1", 30.0)


def test_only_so_many_are_out_of_all_users_together(monkeypatch):
    monkeypatch.setattr(module, "TICKETS_MAX", 3)
    tickets = Tickets()
    users = [Grant(f"user {number}", frozenset()) for number in range(4)]
    first = [tickets.issue(user, "r1", 0.0) for user in users[:3]][0]
    with pytest.raises(Throttled):
        tickets.issue(users[3], "r1", 1.0)
    tickets.redeem(first.text, "r1", 1.0)
    assert tickets.issue(users[3], "r1", 1.0)
