"""Who came and went, or was cut off, in as many lines as a log can bear: by host, and in all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

# Seconds, and lines in that time about one host, and about all of them. A fleet that comes back
# after a restart is told of one by one; who connects in a circle is not.
PERIOD = 60.0
LINES = 100
LINES_IN_ALL = 1000

# Hosts that are counted by themselves in one period.
HOSTS = 1000
OTHERS = "other hosts"


class Arrivals:
    """Lets lines pass, and sums up what it does not let pass. `what` is what they tell of.

    Of what matters more than other lines there is an allowance of its own: no flood of those hides
    it.
    """

    def __init__(self, what: str = "came and went") -> None:
        self._what = what
        self.unsaid = 0
        self._began = time.monotonic()
        self._said: Counter[str] = Counter()
        self._unsaid: Counter[str] = Counter()
        self._in_all = 0

    def allows(self, host: str) -> bool:
        """Whether one more line may be about this host now; what may not is counted."""
        if len(self._said) >= HOSTS and host not in self._said:
            host = OTHERS
        if self._said[host] < LINES and self._in_all < LINES_IN_ALL:
            self._said[host] += 1
            self._in_all += 1
            return True
        self._unsaid[host if len(self._unsaid) < HOSTS else OTHERS] += 1
        self.unsaid += 1
        return False

    def summary(self) -> Iterator[str]:
        """At the end of a period, what was not said in it. To be asked from time to time."""
        if time.monotonic() - self._began < PERIOD:
            return
        most = self._unsaid.most_common(10)
        for host, number in most:
            yield f"listeners of {host} {self._what} {number} more times in the last minute"
        rest = sum(self._unsaid.values()) - sum(number for _, number in most)
        if rest:
            yield f"listeners of further hosts {self._what} {rest} more times in the last minute"
        self._began = time.monotonic()
        self._said.clear()
        self._unsaid.clear()
        self._in_all = 0
