"""Turns: so many at once, and a place to wait for one. No address has all of them.

One client that holds what it was given, or asks for very much, leaves something to the others: the
last turn goes to none that has all of the rest, and the last quarter of the places to wait to none
that has all of those.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from ..errors import FedmsgRelayError


class NoTurn(FedmsgRelayError):
    """There is no place to wait, or it has taken too long."""


class Turns:
    """`at_once` turns, and `waiting` places to wait for one, for `longest` seconds."""

    def __init__(self, at_once: int, waiting: int, longest: float) -> None:
        self._at_once = at_once
        self._places = waiting
        self._longest = longest
        self._changed = threading.Condition()
        self._held: Counter[str] = Counter()
        # Those who wait, in their order.
        self._waiting: list[Turn] = []

    def take(self, address: str) -> Turn:
        """Wait for a turn. Raises NoTurn."""
        turn = Turn(self, address)
        end = time.monotonic() + self._longest
        with self._changed:
            if self._next([*self._waiting, turn]) is not turn:
                self._wait(turn, end)
            self._held[address] += 1
            self._changed.notify_all()  # there may be one for somebody else, too
        return turn

    def give_back(self, address: str) -> None:
        """Of one that `take` has given."""
        with self._changed:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]
            self._changed.notify_all()

    def _wait(self, turn: Turn, end: float) -> None:
        theirs = sum(other.address == turn.address for other in self._waiting)
        if theirs >= self._places - self._places // 4 or len(self._waiting) >= self._places:
            raise NoTurn("too many such requests at once")
        self._waiting.append(turn)
        try:
            while self._next(self._waiting) is not turn:
                left = end - time.monotonic()
                if left <= 0:
                    raise NoTurn("too many such requests at once")
                self._changed.wait(left)
        finally:
            self._waiting.remove(turn)

    def _next(self, waiting: list[Turn]) -> Turn | None:
        """Whose turn it is: of the first whose address has not its share yet."""
        if sum(self._held.values()) >= self._at_once:
            return None
        share = max(1, self._at_once - 1)
        return next((each for each in waiting if self._held[each.address] < share), None)


class Turn:
    """A turn of somebody's, until it is given back."""

    def __init__(self, turns: Turns, address: str) -> None:
        self._turns: Turns | None = turns
        self.address = address

    def give_back(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.give_back(self.address)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
