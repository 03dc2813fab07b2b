"""Wait for a condition, never for luck; and limits of time that hold on any machine.

Two variables of the environment make every limit longer: FEDMSG_TEST_PATIENCE is a factor for a
machine that is slower than most, and FEDMSG_TEST_SLOW slows the relay down (see `slow`). Neither
makes a test that passes take longer: a wait ends when its condition is true.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# The relay gets one part in so many of the time: see `slow`.
SLOWED = max(1.0, float(os.environ.get("FEDMSG_TEST_SLOW") or 1))
# What every limit is multiplied with.
PATIENCE = max(1.0, float(os.environ.get("FEDMSG_TEST_PATIENCE") or 3)) * SLOWED
# Seconds between two looks.
PAUSE = 0.01
# Seconds that `import zmq` by a fresh interpreter takes on a machine of today with nothing to do.
USUAL = 0.15


class WaitedInVainError(AssertionError):
    """What a test waits for has not come."""


def wait_for(
    condition: Callable[[], T | None],
    timeout: float = 20.0,
    what: str = "",
    *,
    pause: float = PAUSE,
    error: type[Exception] = WaitedInVainError,
) -> T:
    """The first true value of `condition()`.

    Raises `error` after `timeout` seconds, of which there are PATIENCE times as many. `pause`:
    seconds between two looks, for a look that costs something.
    """
    limit = patient(timeout)
    end = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > end:
            raise error(f"waited {limit:g} s in vain for {what or condition}")
        time.sleep(pause)
    return value


def patient(seconds: float) -> float:
    """A limit for something that is to happen, for this machine."""
    return seconds * PATIENCE


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer than `seconds`, on a machine with nothing to do.

    A block that took longer may have been held up by the machine: how long a fresh interpreter
    takes right after it tells by which factor. The limit is for what would otherwise take several
    times as long, or for ever.
    """
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    if took > seconds:
        limit = seconds * max(PATIENCE, 2 * pace())
        assert took < limit, f"it took {took:.1f} s, at most {limit:.1f} s were expected"


def pace() -> float:
    """How many times as long as usual a program takes to start now, at least 1."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import zmq"], check=True)
    return max(1.0, (time.monotonic() - started) / USUAL)


def nothing_comes(seconds: float, look: Callable[[], object], what: str = "") -> None:
    """Fail if `look()` is true at any time in so many seconds: absence can only be waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        assert not found, f"{what or 'something'} came: {found!r}"
        time.sleep(PAUSE)
