"""Something a poll loop does every so many seconds."""

from __future__ import annotations

import time
from typing import Callable


class Timer:
    """Runs `action` once `period` seconds have passed since it last did, when it is asked to."""

    def __init__(self, period: float, action: Callable[[], object]) -> None:
        self._period = period
        self._action = action
        # When the next run is due, by time.monotonic().
        self.due = time.monotonic() + period

    def run_if_due(self, now: float) -> None:
        if now >= self.due:
            self.due = now + self._period
            self._action()
