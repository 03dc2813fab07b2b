"""The time at which messages are received: the host's clock, with the monotonic one beside it.

A host's clock may be set. Seen beside the monotonic clock, which nobody can set, that is a jump. A
jump ahead is followed at once: a clock that is set ahead is nearly always one that was wrong. A
jump back is followed once it has lasted: until then the time goes on from where it was, so that
what is received meanwhile can be told from what was received before. One that undoes the last jump
ahead is followed at once, too: then that one was wrong, and the journal corrects what it did.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable

# Seconds. Less is no jump: it is how clocks are kept right, and leap seconds.
STEP = 2.0
# Seconds for which a clock that was set back has to stay so.
LASTING = 600.0
# Seconds by which a jump back may differ from the one ahead that it undoes: a tenth of that, which
# has not been measured in vain, and at most so many.
DIFFERENCE = 60.0


@dataclass
class Clock:
    """One thread calls `look()`, once a second or so. Any may call `now()`.

    `waiting` is a jump back that is not followed yet, in seconds; None: there is none.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    waiting: float | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._offset = self.wall() - self.monotonic()

    def now(self) -> float:
        """Seconds since 1970. A jump ahead is in it at once, before `look()` has seen that."""
        return max(self.monotonic() + self._offset, self.wall())

    def start_from(self, received: float) -> None:
        """Go on from the time of the last message, where the clock is behind that."""
        self._offset = max(self._offset, received - self.monotonic())

    def look(self, last_jump: float = 0.0) -> float:
        """Compare the clocks. Returns the seconds of a jump that is followed now; nearly always 0.

        `last_jump` is the last one ahead, in seconds, if that has not been undone.
        """
        now = self.monotonic()
        difference = self.wall() - (now + self._offset)
        if abs(difference) < STEP:
            self._offset += difference
            self.waiting = None
            return 0.0
        if difference < 0 and not _undoes(difference, last_jump):
            if self.waiting is None or abs(difference - self.waiting) >= STEP:
                self.waiting, self._since = difference, now
            if now - self._since < LASTING:
                return 0.0
        self._offset += difference
        self.waiting = None
        return difference


def _undoes(back: float, ahead: float) -> bool:
    return ahead > 0 and abs(back + ahead) < max(STEP, min(DIFFERENCE, ahead / 10))
