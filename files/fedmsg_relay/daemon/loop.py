"""The poll loop: what one thread waits for, and what it does then."""

from __future__ import annotations

import socket
import time
from typing import Callable, Union

import zmq

# A number is a descriptor.
Source = Union["zmq.Socket[bytes]", socket.socket, int]


class Loop:
    """Sources of input with a handler each, and timers. `on_error` is told of what they raise."""

    def __init__(self, on_error: Callable[[], object]) -> None:
        self._on_error = on_error
        self._poller = zmq.Poller()
        self._handlers: dict[object, Callable[[], object]] = {}
        self._timers: list[_Timer] = []
        # How often it has begun or ended to wait: from another thread this shows that it goes on.
        self.turns = 0

    def every(self, period: float, action: Callable[[], object]) -> None:
        """Run `action` every `period` seconds."""
        self._timers.append(_Timer(period, action))

    def on_input(self, source: Source, handler: Callable[[], object]) -> None:
        """Run `handler` whenever `source` can be read from."""
        self._poller.register(source, zmq.POLLIN)
        # The poller reports a plain socket by its descriptor.
        self._handlers[source.fileno() if isinstance(source, socket.socket) else source] = handler

    def pause(self, source: Source, paused: bool) -> None:
        """Leave what comes from `source` where it is, or no longer."""
        self._poller.modify(source, 0 if paused else zmq.POLLIN)

    def turn(self, longest: float) -> None:
        """Wait for input, `longest` seconds at most; see to it, then to timers that are due."""
        due = min((timer.due for timer in self._timers), default=float("inf"))
        wait = max(0.0, min(longest, due - time.monotonic()))
        self.turns += 1
        for ready, _ in self._poller.poll(int(wait * 1000) + 1):
            self.turns += 1
            try:
                self._handlers[ready]()
            except Exception:  # what one peer provokes must not end it for all the others
                self._on_error()
        now = time.monotonic()
        for timer in self._timers:
            try:
                timer.run_if_due(now)
            except Exception:
                self._on_error()


class _Timer:
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
