"""Where messages wait that take long to check: a little of each in every turn of the loop.

The thread of the sockets must not be kept by one message, and no other thread could help: Python
runs one at a time. So a large message is checked in steps. What its sender sends meanwhile waits
behind it, whatever it is, and others' messages pass.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable

import zmq

from ..checks.wire import INTERNAL_ERROR, Checked, Checker

# Bytes that may wait here of each side. With more no further message of it is taken, and one that
# takes long is wrapped rather than checked: others must not wait for longer than a fraction of a
# second. One of the largest is no reason for either.
WAITING_BYTES = 20 << 20
# A message's share of that beside its frames.
MESSAGE_BYTES = 400

# Seconds for one sender before the next has its turn.
SHARE = 0.002

Done = Callable[[Checked], object]


# The sides that messages come from.
INBOUND, SUBMIT = "inbound", "submit"


@dataclass
class _Waiting:
    side: str
    frames: list[bytes]
    done: Done
    bytes: int
    steps: Generator[None, None, Checked] | None = None


class Desk:
    """Checks messages in the order of each sender. `done` is called with what came of each."""

    def __init__(self, checker: Checker, on_error: Callable[[], object]) -> None:
        self._checker = checker
        self._on_error = on_error
        self._queues: dict[Hashable, deque[_Waiting]] = {}
        # Whose turn it is.
        self._senders: deque[Hashable] = deque()
        self._bytes = {INBOUND: 0, SUBMIT: 0}
        self.messages = 0
        # Since the start.
        self.checked_slowly = 0

    @property
    def is_idle(self) -> bool:
        return not self._queues

    @property
    def waiting_bytes(self) -> int:
        return sum(self._bytes.values())

    def is_full(self, side: str) -> bool:
        """Whether no message of this side should be taken for now."""
        return self._bytes[side] >= WAITING_BYTES

    def check(
        self,
        frames: list[bytes],
        sender: Callable[[], Hashable],
        done: Done,
        side: str = INBOUND,
    ) -> Checked | None:
        """What comes of a message, at once; or None, then `done` is called with it later.

        `sender()` says whose it is.
        """
        whose: Hashable = None
        if not self._queues or (whose := sender()) not in self._queues:
            checked = self._quickly(frames)
            if checked is not None:
                return checked
            whose = whose or sender()
            self._queues[whose] = deque()
            self._senders.append(whose)
        size = sum(map(len, frames)) + MESSAGE_BYTES
        self._queues[whose].append(_Waiting(side, frames, done, size))
        self._bytes[side] += size
        self.messages += 1
        return None

    def check_all(
        self,
        messages: Sequence[list[bytes]],
        heads: Sequence[zmq.Frame | None],
        sender: Callable[[zmq.Frame | None], Hashable],
        done: Done,
    ) -> list[Checked]:
        """As `check` for each, without those that are done later. `heads`: their first frames."""
        checked = [] if self._queues else self._all_quickly(messages)
        if checked and all(checked):
            return checked  # type: ignore[return-value]  # none of them is None
        at_once = []
        for number, (frames, head) in enumerate(zip(messages, heads)):
            found = None if self._queues else checked[number]
            if found is None:
                found = self.check(frames, partial(sender, head), done)
            if found is not None:
                at_once.append(found)
        return at_once

    def work(self, seconds: float) -> None:
        """Go on for about so long, with each sender's first message by turns."""
        end = time.monotonic() + seconds
        while self._senders and time.monotonic() < end:
            whose = self._senders[0]
            self._senders.rotate(-1)
            queue = self._queues[whose]
            checked = self._step(queue[0], end)
            if checked is None:
                continue
            first = queue.popleft()
            self._bytes[first.side] -= first.bytes
            self.messages -= 1
            if not queue:
                del self._queues[whose]
                self._senders.remove(whose)
            try:
                first.done(checked)
            except Exception:  # one message, and not those behind it
                self._on_error()

    def finish(self) -> None:
        """Check all that waits; for the end of the relay."""
        while self._queues:
            self.work(1.0)

    def _all_quickly(self, messages: Sequence[list[bytes]]) -> list[Checked | None]:
        try:
            return self._checker.check_all_quickly(messages)
        except Exception:  # a bug, of one of them
            return [self._quickly(frames) for frames in messages]

    def _quickly(self, frames: list[bytes]) -> Checked | None:
        try:
            return self._checker.check_quickly(frames)
        except Exception:  # a bug, and not a reason to be without the other messages
            self._on_error()
            return Checked(None, INTERNAL_ERROR, "")

    def _step(self, waiting: _Waiting, end: float) -> Checked | None:
        try:
            if waiting.steps is None:
                checked = self._checker.check_quickly(waiting.frames)
                if checked is not None:
                    return checked
                self.checked_slowly += 1
                in_a_hurry = partial(self.is_full, waiting.side)
                waiting.steps = self._checker.check_slowly(waiting.frames, in_a_hurry)
            share = min(end, time.monotonic() + SHARE)
            while time.monotonic() < share:
                next(waiting.steps)
        except StopIteration as stop:
            assert isinstance(stop.value, Checked)
            return stop.value
        except Exception:
            self._on_error()
            return Checked(None, INTERNAL_ERROR, "")
        return None
