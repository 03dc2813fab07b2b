"""Counts of what the relay did with messages, by cause. Each one received is in one of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Messages since the start: `untouched` went out byte for byte, the others by cause.

    `noted` are among those that went out: they are as their sender wanted them, and worth a count.
    """

    untouched: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)

    @property
    def relayed(self) -> int:
        return self.untouched + _total(self.repaired)

    @property
    def received(self) -> int:
        return self.relayed + _total(self.dropped)

    def copy(self) -> Counts:
        return Counts(self.untouched, self.repaired.copy(), self.dropped.copy(), self.noted.copy())

    def since(self, earlier: Counts) -> Counts:
        return Counts(
            self.untouched - earlier.untouched,
            self.repaired - earlier.repaired,
            self.dropped - earlier.dropped,
            self.noted - earlier.noted,
        )

    def __str__(self) -> str:
        """`12 relayed, 2 repaired (wrapped 2), 1 dropped (too large 1)`."""
        return (
            f"{self.relayed} relayed, {_total(self.repaired)} repaired"
            f"{_causes(self.repaired)}, {_total(self.dropped)} dropped{_causes(self.dropped)}"
            + "".join(f", {number} with {cause}" for cause, number in sorted(self.noted.items()))
        )


class RateLimit:
    """Lets `most` through for each key in each `period` of seconds, and counts the rest."""

    def __init__(self, most: int = 10, period: float = 60.0) -> None:
        self._most = most
        self._period = period
        self._started = time.monotonic()
        self._seen: Counter[str] = Counter()

    def allows(self, key: str) -> bool:
        if time.monotonic() - self._started >= self._period:
            self.restart()
        self._seen[key] += 1
        return self._seen[key] <= self._most

    def is_last(self, key: str) -> bool:
        """Whether what was just allowed is the last one of this period."""
        return self._seen[key] == self._most

    def restart(self) -> None:
        self._started = time.monotonic()
        self._seen.clear()


def _total(counter: Counter[str]) -> int:
    return sum(counter.values())


def _causes(counter: Counter[str]) -> str:
    if not counter:
        return ""
    return " ({})".format(", ".join(f"{cause} {n}" for cause, n in sorted(counter.items())))
