"""What is left of a message of many frames: taken a little at a time, and thrown away.

libzmq hands out no other message of a socket before it has handed out all of one.
"""

from __future__ import annotations

import time
from typing import Callable

import zmq

# Frames that nobody sends by mistake.
MANY = 1000
# Frames between two looks at the clock.
STEP = 128

# A number: the arithmetic of enumerations takes longer than the receiving.
_NOBLOCK = int(zmq.NOBLOCK)


class Skipping:
    """Of one socket. `head` is a frame that knows who has sent the message, None between two."""

    def __init__(self) -> None:
        self.head: zmq.Frame | None = None
        # Called with `head` once the message has had MANY frames.
        self.on_many: Callable[[zmq.Frame], object] = lambda head: None
        self._taken = 0

    def begin(self, head: zmq.Frame, taken: int) -> None:
        """There is more of a message, of which so many frames have been taken."""
        self.head, self._taken = head, taken

    def go_on(self, socket: zmq.Socket[bytes], end: float) -> bool:
        """Take frames until this monotonic time or their last. True: all are taken.

        Raises zmq.Again if there are none for now.
        """
        receive = socket.recv
        while self.head is not None:
            more = receive(_NOBLOCK, False).more
            self._taken += 1
            if not more:
                self.head = None
            elif self._taken == MANY:
                self.on_many(self.head)
            if self._taken % STEP == 0 and time.monotonic() > end:
                break
        return self.head is None
