"""The relay on a machine that is slower by a factor: FEDMSG_TEST_SLOW=10.

The relay and its children are a process group of their own, and a helper lets that group run for a
moment and stops it for FACTOR - 1 times as long as it ran, again and again, as cpulimit does. That
needs no rights and no cgroup, and is the same on a busy machine, for what counts is how long the
group really ran. Nothing else of the test is slowed.

    python -m tests.support.slow GROUP FACTOR

The helper ends with its standard input. A line `stop PID` there stops one process of the group, as
a test does that wants a relay that hangs, and lets the others run; `continue PID` goes on. Each
line is answered.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

# Seconds that the group runs for at a time.
TURN = 0.002


def is_relay(command: Sequence[str]) -> bool:
    """Whether a command is our relay, or what the relay starts to serve its backlog."""
    return any(
        part.rpartition("/")[2] == "relay.py" or part == "fedmsg_relay.backlog" for part in command
    )


def main(group: int, factor: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the test's own end ends it
    hangs = False
    # The group may end at any time.
    with contextlib.suppress(ProcessLookupError):
        while True:
            began = time.monotonic()
            order = _order(TURN)
            if not order and not hangs:
                ran = time.monotonic() - began
                os.killpg(group, signal.SIGSTOP)
                order = _order(ran * (factor - 1))
                os.killpg(group, signal.SIGCONT)
            if order == "end":
                break
            if order:
                what, pid = order.split()
                hangs = what == "stop"
                os.kill(int(pid), signal.SIGSTOP if hangs else signal.SIGCONT)
                os.write(1, b"\n")


def _order(seconds: float) -> str:
    """What the test wants within so many seconds; `end` once it has gone."""
    readable, _, _ = select.select([0], [], [], seconds)
    if not readable:
        return ""
    return os.read(0, 100).decode().strip() or "end"


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
