"""How far the peer of a TCP connection is, as its kernel has told ours.

libzmq does not say how much waits for one peer. The kernel does: tcp_info of linux/tcp.h has what
the peer has acknowledged and what it has sent, whether something is on its way, and since when
nothing has come of its host.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import NamedTuple

# Of struct tcp_info: retransmits, probes; unacked; last_ack_recv; bytes_acked, bytes_received;
# notsent_bytes. The last one is there from Linux 4.6 on.
_INFO = struct.Struct("=2x2B20xI28xI60x2Q8xI")


class Progress(NamedTuple):
    """`acked` bytes since the connection was made; `idle`: nothing is on its way to the peer."""

    acked: int
    idle: bool
    # Bytes that the peer has sent.
    received: int = 0
    # Seconds since its kernel last answered, and whether ours is asking again meanwhile.
    silent: float = 0.0
    is_asked: bool = False


def of(fd: int) -> Progress | None:
    """Ask the kernel about the connection with this descriptor. None if it is no longer one."""
    try:
        # With all of its particulars given, this makes no system call; detached, it closes nothing.
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return None
    finally:
        connection.detach()
    if len(info) < _INFO.size:
        return None
    retransmits, probes, unacked, silent, acked, received, notsent = _INFO.unpack(info)
    is_asked = retransmits > 0 or probes > 0
    return Progress(acked, unacked == 0 and notsent == 0, received, silent / 1000, is_asked)


def accepted_on(ports: Container[int], known: Container[int] = ()) -> Iterator[int]:
    """The descriptors of this process that are connections which came in on one of these ports.

    Without those that are known.
    """
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in known:
            continue
        # Not every descriptor is a socket, and one may be closed meanwhile.
        with suppress(OSError, ValueError):
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
            try:
                if connection.getsockname()[1] in ports and connection.getpeername():
                    yield fd
            except (IndexError, TypeError):
                pass  # of another family
            finally:
                connection.detach()


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


def host_of(address: str) -> str:
    """`10.0.0.3` of `10.0.0.3:4711`, `[fe80::1]` of `[fe80::1]:4711`."""
    return address.rpartition(":")[0]


def cut(fd: int, address: str, *, discard: bool = False) -> bool:
    """Shut the connection down, if it still is the one with that peer.

    With `discard`, what has come and was not read yet is thrown away: libzmq would take it in.
    """
    if peer_address(fd) != address:
        return False
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        connection.shutdown(socket.SHUT_RDWR)
        if discard:
            with suppress(OSError):
                while connection.recv(1 << 20, socket.MSG_DONTWAIT):
                    pass
    except OSError:
        return False
    finally:
        connection.detach()
    return True
