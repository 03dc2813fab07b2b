"""How often a line may be said."""

from __future__ import annotations

import time
from collections import Counter


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
