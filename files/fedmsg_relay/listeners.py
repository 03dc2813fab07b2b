"""Which listeners are connected to the outbound socket, and how far behind each of them is.

A connection is a listener once it has subscribed: a port scan has not. XPUB hands each subscription
up with the file descriptor it came in on, and libzmq's socket monitor says when that is closed.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Callable

import zmq

from . import progress, sockets

# Bytes that pass before the first message, ours to the listener: a greeting of 64 and READY with
# its properties, generously. What is taken off too much only makes `missed` a little larger.
HANDSHAKE_BYTES = 256

# A topic and a body.
Message = list[bytes]

# Messages between two marks of how many bytes they made, and how many marks are kept: far more
# than may wait for one listener.
MARK_EVERY = 256
MARKS = 4096


@dataclass
class Emitted:
    """How much has left for the listeners, as ZMTP 3 frames it: a number of messages, of bytes."""

    messages: int = 0
    bytes: int = 0
    _marks: deque[tuple[int, int]] = field(default_factory=lambda: deque([(0, 0)], MARKS))

    def add(self, messages: Sequence[Message]) -> None:
        """Count messages that have been sent, each a topic and a body."""
        size = 0
        for topic, body in messages:
            # The head of a frame takes 2 bytes, or 9 where the frame has more than 255.
            size += len(topic) + len(body) + 4
            if len(body) > 255:
                size += 7
            if len(topic) > 255:
                size += 7
        self.bytes += size
        self.messages += len(messages)
        if self.messages - self._marks[-1][1] >= MARK_EVERY:
            self._marks.append((self.bytes, self.messages))

    def messages_at(self, position: int) -> int:
        """At least so many messages had left when `position` bytes had."""
        marks = list(self._marks)
        found = bisect_right(marks, (position, self.messages + 1)) - 1
        return marks[max(0, found)][1]


@dataclass
class Listener:
    """One connection. Times are Unix time; `since` is when it last took something."""

    fd: int
    address: str
    host: str
    # What had been emitted when its first subscription came, or a moment before that.
    messages: int
    bytes: int
    since: float
    takes_all: bool = False
    is_cut: bool = False
    acked: int = 0
    idle: bool = True
    # What had been emitted when nothing was on its way to it.
    idle_messages: int = 0
    idle_bytes: int = 0


class Listeners:
    """The listeners of one bound XPUB socket. Poll `monitor` and the socket itself for input.

    `queue_length`: its high-water mark, the most messages that libzmq queues for one listener.
    """

    def __init__(self, outbound: zmq.Socket[bytes], emitted: Emitted, queue_length: int) -> None:
        # Every subscription, and not just the first one to a topic.
        outbound.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.monitor = outbound.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED)
        # Called with the descriptor of every connection that is made: a socket has one monitor.
        self.on_accepted: Callable[[int], object] = lambda fd: None
        self._outbound = outbound
        self._emitted = emitted
        self._queue_length = queue_length
        self._by_fd: dict[int, Listener] = {}
        # Emitted when subscriptions were last taken in: a newcomer's came later than that.
        self._seen = (0, 0)

    def __len__(self) -> int:
        return len(self._by_fd)

    def __iter__(self) -> Iterator[Listener]:
        return iter(list(self._by_fd.values()))

    def hosts(self) -> Counter[str]:
        """Connections by the host they come from."""
        return Counter(listener.host for listener in self._by_fd.values())

    def changes(self) -> Iterator[tuple[Listener, bool]]:
        """Take in what has happened: yield each listener that came (True) or went (False)."""
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
            if fd not in self._by_fd:
                address = progress.peer_address(fd)
                if address is None:
                    continue  # it has gone again, and its end may have been read above already
                self._by_fd[fd] = Listener(
                    fd, address, address.rpartition(":")[0], *self._seen, since=time.time()
                )
                yield self._by_fd[fd], True
            self._by_fd[fd].takes_all |= event.bytes == b"\x01"
        self._seen = (self._emitted.messages, self._emitted.bytes)

    def survey(self) -> None:
        """Ask the kernel how far each listener is."""
        now = time.time()
        for listener in self._by_fd.values():
            found = progress.of(listener.fd)
            if found is None:
                continue  # it is going, and the monitor will say so
            if found.idle or found.acked != listener.acked:
                listener.since = now
            listener.acked, listener.idle = found
            if found.idle:
                listener.idle_messages = self._emitted.messages
                listener.idle_bytes = self._emitted.bytes

    def behind(self, listener: Listener) -> tuple[int, int]:
        """Messages and bytes at most that this listener has not got, as of the last `survey`.

        One that takes every topic is compared with what its kernel has acknowledged. Of others we
        do not know which messages are theirs: all since it was last seen idle may be, and as many
        as the queue holds, since the kernel had nothing but libzmq may have had.
        """
        if listener.takes_all:
            position = listener.bytes + max(0, listener.acked - HANDSHAKE_BYTES)
            messages = self._emitted.messages_at(position)
        else:
            position = max(listener.bytes, listener.idle_bytes)
            messages = max(listener.messages, listener.idle_messages - self._queue_length)
        most = max(0, self._emitted.messages - max(listener.messages, messages))
        return most, max(0, self._emitted.bytes - position)

    def cut(self, listener: Listener) -> bool:
        """End its connection, and with it libzmq's queue for it. It will connect anew by itself.

        False if that had been done, or it has gone already.
        """
        if listener.is_cut:
            return False
        listener.is_cut = progress.cut(listener.fd, listener.address)
        return listener.is_cut

    def _departures(self) -> Iterator[tuple[Listener, bool]]:
        while self.monitor.poll(0):
            event, fd = sockets.monitor_event(self.monitor)
            if event == zmq.EVENT_ACCEPTED:
                self.on_accepted(fd)
            elif fd in self._by_fd:
                yield self._by_fd.pop(fd), False

    def close(self) -> None:
        self._outbound.disable_monitor()
        self.monitor.close()
