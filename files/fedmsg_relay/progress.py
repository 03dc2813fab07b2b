"""How far the peer of a TCP connection is, as its kernel has told ours.

libzmq does not say how much waits for one peer. The kernel does: tcp_info of linux/tcp.h has what
the peer has acknowledged, and whether something is on its way.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# Offsets into struct tcp_info; the last one is there from Linux 4.6 on.
_UNACKED = struct.Struct("@24xI")
_BYTES_ACKED = struct.Struct("@120xQ")
_NOTSENT_BYTES = struct.Struct("@144xI")
_SIZE = 148


class Progress(NamedTuple):
    """`acked` bytes since the connection was made; `idle`: nothing is on its way to the peer."""

    acked: int
    idle: bool


def of(fd: int) -> Progress | None:
    """Ask the kernel about the connection with this descriptor. None if it is no longer one."""
    try:
        # With all of its particulars given, this makes no system call; detached, it closes nothing.
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return None
    finally:
        connection.detach()
    if len(info) < _SIZE:
        return None
    unacked, notsent = _UNACKED.unpack_from(info)[0], _NOTSENT_BYTES.unpack_from(info)[0]
    return Progress(_BYTES_ACKED.unpack_from(info)[0], unacked == 0 and notsent == 0)


def peer_address(fd: int) -> str | None:
    """`10.0.0.3:4711`, `[fe80::1%eth0]:4711`, or None if it is no connection any more."""
    try:
        connection = socket.socket(fileno=fd)  # which asks for the family: addresses depend on it
    except OSError:
        return None
    try:
        host, port, *more = connection.getpeername()
        if more and more[1]:  # the zone of a link-local address
            host = f"{host}%{socket.if_indextoname(more[1])}"
    except (OSError, ValueError):
        return None
    finally:
        connection.detach()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cut(fd: int, address: str) -> bool:
    """Shut the connection down, if it still is the one with that peer."""
    if peer_address(fd) != address:
        return False
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    finally:
        connection.detach()
    return True
