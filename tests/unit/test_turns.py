"""Turns for large pages and searches: who waits, who is refused, and what is left to others."""

from __future__ import annotations

import threading

import pytest
from fedmsg_relay.backlog.turns import NoTurn, Turn, Turns

from tests.support.waiting import patient, wait_for


def begin(turns: Turns, address: str, taken: list[Turn]) -> threading.Thread:
    """Take a turn on a thread, and wait until it has it or waits for it."""
    before = len(taken) + len(turns._waiting)
    thread = threading.Thread(target=lambda: taken.append(turns.take(address)), daemon=True)
    thread.start()
    wait_for(lambda: len(taken) + len(turns._waiting) > before, what="a place")
    return thread


def test_no_address_has_the_last_turn_of_several() -> None:
    turns = Turns(4, 24, patient(30))
    greedy: list[Turn] = []
    threads = [begin(turns, "a", greedy) for _ in range(8)]
    assert len(greedy) == 3
    with turns.take("b"):
        pass
    while greedy:
        greedy.pop().give_back()
        wait_for(lambda: greedy or not turns._waiting, what="the next one's turn")
    for thread in threads:
        thread.join(patient(30))


def test_those_who_wait_are_served_in_their_order() -> None:
    turns = Turns(1, 10, patient(30))
    first = turns.take("a")
    served: list[Turn] = []
    threads = [begin(turns, name, served) for name in "bcda"]
    for name in "bcda":
        first.give_back()
        wait_for(lambda: served, what="the next one's turn")
        first = served.pop()
        assert first.address == name
    first.give_back()
    first.give_back()  # once is enough
    for thread in threads:
        thread.join(patient(30))
    with turns.take("e"):
        pass


def test_the_last_places_to_wait_are_not_one_address_s() -> None:
    turns = Turns(1, 4, patient(30))
    held = turns.take("x")
    waiting: list[Turn] = []
    for _ in range(3):
        begin(turns, "a", waiting)
    with pytest.raises(NoTurn):
        turns.take("a")
    begin(turns, "b", waiting)
    with pytest.raises(NoTurn):
        turns.take("c")
    held.give_back()
    for _ in range(4):
        wait_for(lambda: waiting, what="the next one's turn")
        waiting.pop().give_back()


def test_nobody_waits_for_ever() -> None:
    turns = Turns(1, 4, 0.01)
    with turns.take("a"), pytest.raises(NoTurn):
        turns.take("b")
    with turns.take("b"):
        pass
