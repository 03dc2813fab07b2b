"""Numbers that the processes of a measurement share: memory that each of them maps.

Each number has one writer. Reading one costs a fiftieth of a microsecond, so that the sender can
follow what has been received with each message, and nobody has to be told anything.
"""

from __future__ import annotations

import mmap
import os

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


def create() -> int:
    """A descriptor to be closed at the end; the others attach by its `path_of`."""
    # Not a file on a disk: writing to one waits while the kernel writes its page back.
    fd = os.memfd_create("bench-counters")
    os.ftruncate(fd, 8 * SLOTS)
    return fd


def path_of(fd: int) -> str:
    return f"/proc/{os.getpid()}/fd/{fd}"


def attach(path: str) -> memoryview:
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 8 * SLOTS)).cast("Q")
