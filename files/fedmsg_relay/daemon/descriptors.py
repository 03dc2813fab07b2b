"""A reserve of descriptors: who comes when few are left is turned away, and comes again later.

Where none is left libzmq cannot accept who waits, and tries again without a pause, which takes a
processor; and neither the log nor the journal can be opened anew. So the last ones are the relay's
own: a connection that has got one of these is ended at once, and those that were there before stay.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from typing import Callable

from .. import log

# Descriptors that connections may not have: some for the relay itself, the others for those who
# come between two looks. Of a low limit a quarter.
RESERVE = 256

# Seconds for which it is said to be short of them after somebody was turned away.
RECENT = 30.0

logger = logging.getLogger(log.NAME)


class Descriptors:
    """`turn_away(fd)` ends the connection with this descriptor; False if it is none of ours."""

    def __init__(self, turn_away: Callable[[int], bool]) -> None:
        self._turn_away = turn_away
        self._limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._since: float | None = None
        self._last = 0.0
        # About so many, when last looked at.
        self.in_use = 0

    def look(self) -> None:
        """Turn away those who have come since the reserve was begun."""
        self._limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        first = self._limit - min(RESERVE, self._limit // 4)
        # The kernel gives out the lowest one that is free.
        try:
            lowest = os.dup(0)
            os.close(lowest)
        except OSError:
            lowest = self._limit
        self.in_use = lowest
        if lowest < first:
            if self._since is not None and time.time() - self._last > RECENT:
                logger.warning("descriptors: enough again, newcomers are let in")
                self._since = None
            return
        turned_away = sum(self._turn_away(fd) for fd in range(first, self._limit))
        if not turned_away:
            return
        self._last = time.time()
        if self._since is None:
            self._since = self._last
            logger.error(
                "descriptors: %d of %d are in use, newcomers are turned away until there are more;"
                " LimitNOFILE= of the unit is the limit",
                first, self._limit,
            )  # fmt: skip

    def state(self) -> dict[str, object]:
        """For health: `limit`, and `short_since` in Unix time while there are too few."""
        return {"limit": self._limit, "short_since": self._since}
