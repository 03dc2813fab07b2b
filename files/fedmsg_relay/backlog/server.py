"""The web server: waitress, with bounds on what one client can take from the others.

waitress reads requests and sends answers on one thread for all connections, and calls the
application on a few others, so a slow client costs no thread. What it leaves open: a client that
sends its request a byte at a time keeps its connection, one that reads nothing of a large answer
keeps a thread, and with all connections taken nobody else gets one. `_Warden` closes those.
"""

from __future__ import annotations

import logging
import resource
import socket
import struct
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Optional

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, create_server

from ..checks.networks import Allowed, Refusals, plain

# Most of them wait for a turn when many large pages are asked for.
THREADS = 48

# Connections: beyond so many those that have been idle the longest are closed, to make room. More
# than are accepted at once, so that whoever sends a request without delay is not among them.
CONNECTIONS = 256
ACCEPTED_AT_ONCE = 64
# Connections that the kernel keeps meanwhile.
QUEUE = 1024

# Bytes. A request is a line and a few headers, and has no body.
LARGEST_HEADER = 8192
LARGEST_BODY = 1024

# Bytes of an answer that may wait for a client to read them; beyond, its thread waits too. Never
# put on disk, which is what `outbuf_overflow` would do.
LARGEST_UNREAD = 2 << 20

# Bytes of an answer that are handed to the kernel at once: waitress copies so much each time.
SENT_AT_ONCE = 1 << 18

# Seconds: for a request to arrive complete, and a connection to stay idle after an answer; for a
# client to read anything at all of an answer; and for one to be over.
IDLE = 15.0
UNREAD = 10.0
LONGEST = 120.0


Accepted = Optional[tuple[socket.socket, Any]]


class Unread:
    """What clients have not read yet. Call it with an address: bytes for that one, and for all."""

    def __init__(self) -> None:
        self._served: dict[int, Any] = {}

    def follow(self, served: dict[int, Any]) -> None:
        """Count the connections that waitress has in this map."""
        self._served = served

    def __call__(self, address: str) -> tuple[int, int]:
        theirs = everybodys = 0
        for channel in self._served.copy().values():
            if isinstance(channel, _Channel):
                everybodys += channel.total_outbufs_len
                if channel.addr and channel.addr[0] == address:
                    theirs += channel.total_outbufs_len
        return theirs, everybodys


def serve(
    application: Callable[..., Any],
    listening: list[socket.socket],
    allowed: Allowed,
    refusals: Refusals,
    unread: Unread,
) -> None:
    """Answer on these bound sockets, for good. `application` is called as WSGI says.

    Connections of those who are not `allowed` are closed unread, and entered in `refusals`.
    `unread` counts what they have not read.
    """
    # Of its own it tells of every request that waits for a thread. Errors are worth a line.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    _allow_descriptors(4 * CONNECTIONS)
    served: dict[int, Any] = {}
    server = create_server(
        application,
        map=served,
        sockets=listening,
        threads=THREADS,
        backlog=QUEUE,
        connection_limit=2 * CONNECTIONS,  # where it stops to accept; never reached
        asyncore_use_poll=True,  # select() ends at 1024 descriptors
        asyncore_loop_timeout=1,
        cleanup_interval=1,
        channel_timeout=int(UNREAD),
        max_request_header_size=LARGEST_HEADER,
        max_request_body_size=LARGEST_BODY,
        outbuf_high_watermark=LARGEST_UNREAD,
        outbuf_overflow=1 << 30,
        send_bytes=1,  # waitress spins while an answer that is not finished has fewer than this
        ident="fedmsg-relay",
        expose_tracebacks=False,
        log_socket_errors=False,
        clear_untrusted_proxy_headers=True,
    )
    unread.follow(served)
    warden = _Warden(served)
    for each in list(served.values()):
        if isinstance(each, TcpWSGIServer):
            each.channel_class = _Channel
            # What it calls every second, and when somebody has connected.
            each.maintenance = warden.make_round
            each.handle_accept = partial(warden.accept, each.handle_accept)
            each.accept = partial(_accept_allowed, each.accept, allowed, refusals)
    server.run()


def _accept_allowed(
    accept: Callable[[], Accepted], allowed: Allowed, refusals: Refusals
) -> Accepted:
    """The next connection, or None if there is none, which waitress takes for one that has gone."""
    accepted = accept()
    if accepted is None:
        return None
    connection, peer = accepted
    if peer[0] in allowed:
        return accepted
    connection.close()
    line = refusals.enter("http", plain(peer[0]))
    if line:
        print(f"http: {line}", file=sys.stderr, flush=True)
    return None


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection that knows since when it has been answered, or idle. By time.monotonic()."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.busy_since = self.idle_since = time.monotonic()
        self.is_cut = False
        super().__init__(*args, **keywords)
        self.sendbuf_len = SENT_AT_ONCE

    def service(self) -> None:
        self.busy_since = time.monotonic()
        try:
            super().service()
        finally:
            self.idle_since = time.monotonic()

    def is_idle(self) -> bool:
        """Whether it is the client's turn to send something."""
        return not self.requests and not self.total_outbufs_len

    def is_overdue(self, now: float) -> bool:
        if self.is_idle():
            return now - self.idle_since > IDLE
        if self.total_outbufs_len and time.time() - self.last_activity > UNREAD:
            return True
        return now - self.busy_since > LONGEST and self.total_outbufs_len > 0

    def cut(self) -> None:
        """End the connection. waitress meets that in the next turn of its loop, and closes it.

        Closed here, its descriptor could be the next connection's before that turn is over, which
        then would be closed in its place. And waitress's own `will_close` waits until the client
        can be written to: one that reads nothing never can.
        """
        self.is_cut = True
        with suppress(OSError):
            # What it has not read is thrown away when it is closed.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.shutdown(socket.SHUT_RDWR)


class _Warden:
    """Cuts connections. All in waitress's own thread, to which they belong."""

    def __init__(self, served: dict[int, Any]) -> None:
        self._served = served

    def make_round(self, _now: float) -> None:
        now = time.monotonic()
        for channel in self._channels():
            if channel.is_overdue(now):
                channel.cut()

    def accept(self, accept_one: Callable[[], None]) -> None:
        # One in each turn of the loop, as waitress does, is too few while thousands connect.
        for _ in range(ACCEPTED_AT_ONCE):
            accept_one()
        channels = self._channels()
        surplus = len(channels) - CONNECTIONS
        if surplus > 0:
            idle = filter(_Channel.is_idle, channels)
            for channel in sorted(idle, key=lambda channel: channel.idle_since)[:surplus]:
                channel.cut()

    def _channels(self) -> list[_Channel]:
        connected = (each for each in self._served.values() if isinstance(each, _Channel))
        return [channel for channel in connected if not channel.is_cut]


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
