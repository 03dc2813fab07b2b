"""Free ports, of which no two processes that test on this machine get the same.

A process reserves a block of ports by a socket in the abstract namespace. The kernel drops that
name when the process ends, however it does, and the name is seen just as far as the port is: both
belong to the network namespace.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

# Below the ports that the kernel gives to outgoing connections, of which ZeroMQ makes many.
LOWEST = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
BLOCK = 50
HOSTS = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))

_lock = threading.Lock()
_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on at any address. No other call gives it, in no process."""
    with _lock:
        return next(_ports)


def free_address(host: str = "127.0.0.1") -> str:
    """A free port as an endpoint, `tcp://127.0.0.1:PORT`."""
    return f"tcp://{host}:{free_port()}"


def server(host: str = "127.0.0.1", port: int | None = None, backlog: int = 128) -> socket.socket:
    """A socket that listens at a free port, or at `port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port or free_port()), family=family, backlog=backlog)


def is_free(port: int) -> bool:
    """Whether nothing is bound to the port, at any address of this host."""
    for family, host in HOSTS:
        try:
            probe = socket.socket(family)
        except OSError:  # a kernel without IPv6
            continue
        with probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if family == socket.AF_INET or "in use" in str(error):
                    return False
    return True


def _given() -> Iterator[int]:
    highest = int(RANGE.read_text(encoding="ascii").split()[0])
    blocks = list(range(LOWEST, max(highest, LOWEST + BLOCK) - BLOCK + 1, BLOCK))
    random.SystemRandom().shuffle(blocks)
    for first in blocks:
        name = f"\0fedmsg-relay-tests/ports/{first}"
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            reservation.bind(name)
        except OSError:  # another process has it
            reservation.close()
            continue
        _reserved.append(reservation)
        yield from filter(is_free, range(first, first + BLOCK))
    raise AssertionError("no port is free any more")


_ports = _given()
