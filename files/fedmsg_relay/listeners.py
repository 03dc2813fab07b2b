"""Which listeners are connected to the outbound socket.

A connection is a listener once it has subscribed: a port scan has not. XPUB hands each subscription
up with the file descriptor it came in on, and libzmq's socket monitor says when that is closed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import zmq
from zmq.utils.monitor import recv_monitor_message


class Listeners:
    """The listeners of one bound XPUB socket. Poll `monitor` and the socket itself for input."""

    def __init__(self, outbound: zmq.Socket[bytes]) -> None:
        # Every subscription, and not just the first one to a topic.
        outbound.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.monitor = outbound.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._outbound = outbound
        self._address_by_fd: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._address_by_fd)

    def changes(self) -> Iterator[str]:
        """Take in what has happened; yield `listener 10.0.0.3:4711 connected` and the like."""
        yield from self._departures()
        while self._outbound.poll(0):
            event = self._outbound.recv(zmq.NOBLOCK, copy=False)
            # Its descriptor may have been another's until a moment ago: whoever had it ended before
            # this was sent, and must be gone from our list first.
            yield from self._departures()
            if event.bytes[:1] != b"\x01":
                continue  # an unsubscription; libzmq makes it up at the end, without a descriptor
            try:
                fd = event.get(zmq.SRCFD)
            except zmq.ZMQError:
                # Not ZMTP 3: libzmq makes up a subscription for what it takes for a peer of ZeroMQ
                # 2, and it takes random bytes for one, too. What it is, nobody can tell.
                continue
            if fd in self._address_by_fd:
                continue
            address = _peer_address(fd)
            # Unknown: it has gone again, and its end may have been read above already.
            if address is not None:
                self._address_by_fd[fd] = address
                yield f"listener {address} connected"

    def _departures(self) -> Iterator[str]:
        while self.monitor.poll(0):
            fd = recv_monitor_message(self.monitor)["value"]
            if fd in self._address_by_fd:
                yield f"listener {self._address_by_fd.pop(fd)} disconnected"

    def close(self) -> None:
        self._outbound.disable_monitor()
        self.monitor.close()


def _peer_address(fd: int) -> str | None:
    try:
        # A copy, so that closing this object leaves libzmq's descriptor open.
        with socket.socket(fileno=os.dup(fd)) as connection:
            host, port = connection.getpeername()[:2]
    except (OSError, ValueError):
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
