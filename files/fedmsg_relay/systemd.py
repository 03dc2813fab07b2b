"""Talk to systemd: the notification protocol of sd_notify(3), and what it passes in.

The protocol is one datagram to $NOTIFY_SOCKET; sd_notify(3) prints a client of its own for programs
that do not want a library for that.
"""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> bool:
    """Send assignments such as `READY=1`. False when not run by systemd or it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):  # a name in the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
        try:
            client.settimeout(1)
            client.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return False
    return True


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
