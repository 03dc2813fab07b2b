"""Numbers that the processes of a measurement share: a file that each of them maps.

Each number has one writer. Reading one costs a fiftieth of a microsecond, so that the sender can
follow what has been received with each message, and nobody has to be told anything.
"""

from __future__ import annotations

import mmap
from pathlib import Path

# Numbers of 64 bits, in this order.
STOP = 0  # all shall end
GO = 1  # the sender may send
READY = 2  # the listener hears every message on all its connections
STARTED = 3  # the listener has seen the last message of the preparation on all of them
SENT = 4  # messages
RECEIVED = 5  # messages, on all connections together
STAMP = 6  # CLOCK_MONOTONIC in ns when RECEIVED was last increased
PAUSED = 7  # the sender has seen that it may not send
PREPARED = 8  # messages of the preparation
SLOTS = 9


def create(path: Path) -> memoryview:
    path.write_bytes(bytes(8 * SLOTS))
    return attach(path)


def attach(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 8 * SLOTS)).cast("Q")
