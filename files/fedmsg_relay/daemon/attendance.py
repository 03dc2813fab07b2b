"""Who listens: said in the log, and remembered for the hold after the next start."""

from __future__ import annotations

import logging
import time
from functools import partial

from .. import log
from ..journal.recorder import Recorder
from .loop import Loop
from .outbound import SURVEY_PERIOD, Outbound

logger = logging.getLogger(log.NAME)


class Attendance:
    """Listeners' comings and goings, as the outbound side finds them. Call it in its thread."""

    def __init__(self, outbound: Outbound, recorder: Recorder | None) -> None:
        self._outbound = outbound
        self._recorder = recorder
        self._is_due = self._is_over = False
        self._remembered = 0.0

    def watch(self, loop: Loop) -> None:
        """Take it in whenever there is something."""
        outlet, commands = self._outbound.outlet, self._outbound.socket.fileno()
        for source in (self._outbound.listeners.monitor, outlet.wakeup, commands):
            loop.on_input(source, self.take)
        # While another thread has the socket, what comes is that one's business.
        outlet.on_lent = partial(loop.pause, commands)

    def take(self) -> None:
        """Take in who came and who went."""
        before = self._outbound.listeners.came_and_went
        for line in self._outbound.changes():
            logger.info("%s", line)
        self._is_due |= self._outbound.listeners.came_and_went != before
        # At once, but not for each of thousands.
        if self._is_due and time.monotonic() - self._remembered > SURVEY_PERIOD:
            self.remember()

    def survey(self) -> None:
        """Look at all of them."""
        self._outbound.survey()
        self.take()

    def close(self) -> None:
        """The relay stops: who leaves from now on does so for that, and is expected back."""
        if self._is_due:
            self.remember()
        self._is_over = True

    def remember(self) -> None:
        """Write their hosts into the journal, unless the relay stops."""
        if self._recorder is not None and not self._is_over:
            self._recorder.remember(self._outbound.listeners.hosts())
        self._is_due, self._remembered = False, time.monotonic()
