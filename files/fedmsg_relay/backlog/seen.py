"""Which msg_ids have been seen: millions of them, in 14 bytes each.

A set of strings takes ten times as much. What is kept of an id is its 64-bit hash: two of two
million ids share one with a probability of one in ten million.
"""

from __future__ import annotations

from array import array

# Tables that grow one by one, so that there are never two of everything; their first places, how
# full one may be, and by how much it grows then.
_TABLES = 1024
_PLACES = 16
_FULL = 0.8
_GROWTH = 1.3

_BITS = (1 << 64) - 1


class Seen:
    """A set of strings that can be added to, and asked."""

    def __init__(self) -> None:
        self._tables = [_empty(_PLACES) for _ in range(_TABLES)]
        self._rooms = [int(_PLACES * _FULL)] * _TABLES
        self._count = 0

    def add(self, text: str) -> bool:
        """Add one. Whether it is new."""
        hashed = hash(text) & _BITS or 1
        number = hashed % _TABLES
        if not _put(self._tables[number], hashed):
            return False
        self._count += 1
        self._rooms[number] -= 1
        if not self._rooms[number]:
            self._grow(number)
        return True

    def __contains__(self, text: str) -> bool:
        hashed = hash(text) & _BITS or 1
        table = self._tables[hashed % _TABLES]
        return table[_place(table, hashed)] == hashed

    def __len__(self) -> int:
        return self._count

    def _grow(self, number: int) -> None:
        former = self._tables[number]
        table = self._tables[number] = _empty(int(len(former) * _GROWTH) + 1)
        taken = sum(_put(table, hashed) for hashed in former if hashed)
        self._rooms[number] = int(len(table) * _FULL) - taken


def _empty(places: int) -> array[int]:
    return array("Q", bytes(8 * places))


def _place(table: array[int], hashed: int) -> int:
    """Where it is, or the empty place that it would have. None is ever full."""
    places = len(table)
    at = hashed // _TABLES % places
    while table[at] not in (0, hashed):
        at = at + 1 if at + 1 < places else 0
    return at


def _put(table: array[int], hashed: int) -> bool:
    at = _place(table, hashed)
    if table[at]:
        return False
    table[at] = hashed
    return True
