"""What waits in the spool, whose it is, and whose turn it is.

Any user can put any file there by any name, with any time of modification. So users take turns, and
what one of them has there goes in the order in which it came, for which the kernel's time of the
last change stands: only to a later one can a user set it.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

# Messages of one user that are listed at a time, and of all users: so many names are held in
# memory, however many there are. The least of the first is for a spool of very many users.
BATCH = 10_000
LEAST = 100
# Bytes that a user may send in one turn, if it is more than one message.
TURN = 64 << 10
# A larger message waits for all others that were there, since it may fill a slow line for minutes.
LARGE = 1 << 20

_OURS = re.compile(r"([0-9]{20})-[0-9a-f]+")  # the time in a name, which keeps a process's order
# Nanoseconds that may go by from a name's choice until the file has it.
_WRITING = 60 * 10**9


class Spooled(NamedTuple):
    """One file: of `size` bytes; `arrived` sorts by time, in nanoseconds."""

    arrived: int
    name: str
    owner: int
    size: int


class Scan(NamedTuple):
    """What is there by owner, those that came first in order; bytes of the disk by owner."""

    waiting: dict[int, list[Spooled]]
    used: dict[int, int]


def scan(
    directory: int, passed_over: Container[str], tidy: Callable[[str, os.stat_result], None]
) -> Scan:
    """Look at all of the spool. `tidy` is called with each name that begins with a dot."""
    waiting: dict[int, list[Spooled]] = {}
    used: dict[int, int] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            used[about.st_uid] = used.get(about.st_uid, 0) + about.st_blocks * 512
            if entry.name.startswith("."):
                tidy(entry.name, about)
            elif not stat.S_ISDIR(about.st_mode) and entry.name not in passed_over:
                theirs = waiting.setdefault(about.st_uid, [])
                arrived = arrival(entry.name, about.st_ctime_ns)
                theirs.append(Spooled(arrived, entry.name, about.st_uid, about.st_size))
                if len(theirs) >= 2 * _most(waiting):
                    theirs.sort()
                    del theirs[_most(waiting) :]
    for theirs in waiting.values():
        theirs.sort()
        del theirs[_most(waiting) :]
    return Scan(waiting, used)


def arrival(name: str, changed: int) -> int:
    """When a file came, by its name as far as that can be true, and by when it was last changed.

    The time in the name keeps the order of one process over a clock that is set back.
    """
    found = _OURS.fullmatch(name)
    return changed if found is None else max(int(found[1]), changed - _WRITING)


def in_turns(waiting: dict[int, list[Spooled]]) -> Iterator[Spooled]:
    """One user's after another's, a TURN of each. Whoever was first to have something begins."""
    queues = deque(deque(theirs) for theirs in sorted(waiting.values(), key=lambda one: one[:1]))
    while queues:
        queue = queues.popleft()
        sent = 0
        while queue and (not sent or sent + queue[0].size <= TURN):
            sent += max(1, queue[0].size)
            yield queue.popleft()
        if queue:
            queues.append(queue)


def parted(waiting: dict[int, list[Spooled]]) -> tuple[list[Spooled], list[Spooled]]:
    """All that waits in the order to send it in: what is not LARGE, and what is."""
    parts: list[list[Spooled]] = []
    for is_large in (False, True):
        of_it = {
            owner: [each for each in theirs if (each.size > LARGE) is is_large]
            for owner, theirs in waiting.items()
        }
        parts.append(list(in_turns({owner: theirs for owner, theirs in of_it.items() if theirs})))
    return parts[0], parts[1]


def _most(waiting: dict[int, list[Spooled]]) -> int:
    return max(LEAST, BATCH // max(1, len(waiting)))
