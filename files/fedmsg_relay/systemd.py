"""Talk to systemd: the notification protocol of sd_notify(3), and what it passes in.

The protocol is one datagram to $NOTIFY_SOCKET; sd_notify(3) prints a client of its own for programs
that do not want a library for that.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from functools import lru_cache

from . import log

logger = logging.getLogger(log.NAME)


def notify(*assignments: str) -> bool:
    """Send assignments such as `READY=1`. False when not run by systemd or it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    try:
        _client().sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def _client() -> socket.socket:
    """Opened once: the watchdog is to be fed also when no descriptor is left."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    client.settimeout(1)
    return client


def watchdog_interval() -> float | None:
    """Seconds between two `WATCHDOG=1`: half of what the unit allows. None: no watchdog."""
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
        for_pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    if microseconds <= 0 or for_pid != os.getpid():
        return None
    return microseconds / 2_000_000


def passed_sockets() -> Iterator[tuple[str, int]]:
    """Address, `tcp://host:port` with a numeric host, and descriptor of each TCP socket that a
    socket unit listens on for us, by the protocol of sd_listen_fds(3). For one call at the start:
    children are not told of them.
    """
    for_pid, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if for_pid != str(os.getpid()) or not number.isdigit():
        return
    for fd in range(3, 3 + int(number)):
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)  # libzmq accepts whenever there may be a connection
        try:
            listening = socket.socket(fileno=fd)
        except OSError:
            continue
        try:
            family, name = listening.family, listening.getsockname()
        finally:
            listening.detach()
        if family in (socket.AF_INET, socket.AF_INET6):
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            yield f"tcp://{host}:{name[1]}", fd


def close_unnamed(passed: Mapping[str, int]) -> None:
    """Close what is left of the passed sockets: the config does not name their addresses."""
    for address, fd in passed.items():
        logger.warning("%s is bound for us, and the config does not name it", address)
        os.close(fd)
