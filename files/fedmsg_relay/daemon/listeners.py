"""Which listeners are connected to the outbound socket, and how far behind each of them is.

A connection is a listener once it has subscribed: a port scan has not. XPUB hands each subscription
up with the file descriptor it came in on, and libzmq's socket monitor says when that is closed.

Of a peer that speaks ZMTP 1 or 2, libzmq does not say the descriptor. That somebody like that has
come is known by a subscription without one; which connection it is, by what has passed on it.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Callable, NamedTuple

import zmq

from .. import sockets, tcp_progress
from . import intake
from .outlet import Outlet

# Bytes that pass before the first message, ours to the listener: a greeting of 64 and READY with
# its properties, generously. What is taken off too much only makes `missed` a little larger.
HANDSHAKE_BYTES = 256

# Bytes of ours that a peer of ZMTP 3 has got when the handshake is over: its greeting alone. In the
# handshake of older ones we send at most 14.
GREETING_BYTES = 64

# What is taken in in one turn of the loop; seconds for it, since of costly topics libzmq takes in
# many within each call.
EVENTS_AT_ONCE = 500
DEPARTURES_FOR = 0.02
SUBSCRIPTIONS_AT_ONCE = 200
SUBSCRIPTIONS_FOR = 0.005

# Seconds that one look can tell of, at most: whoever is asked at one moment need not have been
# since the look before. One that reads nothing is asked every minute or two, and answers at once.
LOOKED = 1.0

# For a descriptor, of peers of ZMTP 1 and 2.
NOT_KNOWN = -1

# Peers that were cut off for what they sent, and are not told of yet.
GREEDY = 1000

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
    # It speaks ZMTP 1 or 2, or nothing that libzmq can tell from that.
    is_old: bool = False
    # Subscriptions that it holds, at most, and their bytes.
    topics: int = 0
    topic_bytes: int = 0
    is_cut: bool = False
    acked: int = 0
    idle: bool = True
    # Seconds since its kernel last answered, and for how many ours has been asking again.
    silent: float = 0.0
    asked_for: float = 0.0
    # What had been emitted when nothing was on its way to it.
    idle_messages: int = 0
    idle_bytes: int = 0


class _Event(NamedTuple):
    """What somebody has sent: with its first byte 1, that he subscribes to the rest of it."""

    body: bytes
    fd: int
    # Of the peer at the other end when this was received: None if there was none any more.
    address: str | None


class Listeners:
    """The listeners of one bound XPUB socket. Poll `monitor` and the socket itself for input.

    `queue_length`: its high-water mark, the most messages that libzmq queues for one listener.
    """

    def __init__(
        self,
        outbound: zmq.Socket[bytes],
        outlet: Outlet,
        emitted: Emitted,
        queue_length: int,
    ) -> None:
        # Every subscription, and not just the first one to a topic.
        outbound.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.monitor = sockets.monitor(outbound, zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED)
        # Called with the descriptor of every connection that is made and its peer's address: a
        # socket has one monitor.
        self.on_accepted: Callable[[int, str], object] = lambda fd, address: None
        self._outbound = outbound
        self._outlet = outlet
        # What has been received and not been taken in.
        self._received: deque[_Event] = deque()
        self._is_empty = True
        self._emitted = emitted
        self._queue_length = queue_length
        self._by_fd: dict[int, Listener] = {}
        # All connections: those that are no listeners may send, too.
        self._accepted: dict[int, str] = {}
        self._levels: dict[int, intake.Level] = {}
        # By host, what its listeners hold together: topics, and their bytes.
        self._host_topics: Counter[str] = Counter()
        self._host_bytes: Counter[str] = Counter()
        # Peers, by their address, that sent more than a listener may, and what; see `greedy`.
        self._greedy: deque[tuple[str, str]] = deque(maxlen=GREEDY)
        self._old_came = self._old_is_due = False
        # Whether more has come than could be taken in at once.
        self.is_behind = False
        self._surveyed_at = time.monotonic()
        # Since the start: connections, and listeners that came or went.
        self.accepted = self.came_and_went = 0
        # Emitted when subscriptions were last taken in: a newcomer's came later than that.
        self._seen = (0, 0)

    def __len__(self) -> int:
        return len(self._by_fd)

    def __iter__(self) -> Iterator[Listener]:
        return iter(list(self._by_fd.values()))

    def hosts(self) -> Counter[str]:
        """Connections by the host they come from."""
        return Counter(listener.host for listener in self._by_fd.values())

    def protocols(self) -> dict[str, int]:
        """Listeners by what they speak: `zmtp3`, or `older`."""
        older = sum(listener.is_old for listener in self._by_fd.values())
        return {"zmtp3": len(self) - older, "older": older}

    def changes(self) -> Iterator[tuple[Listener, bool]]:
        """Take in what has happened: yield each listener that came (True) or went (False).

        Not all of it at once, where much has happened: `is_behind` says that there is more.
        """
        yield from self._departures()
        if not self._received:
            self.is_behind = True
            if self._outlet.is_lent:
                return
            received = self._outlet.run(self._receive, self._received.extend)
            if received is None:
                return
            self._received.extend(received)
        # A descriptor may have been another's until a moment ago: whoever had it ended before this
        # was sent, and must be gone from our list first.
        end = time.monotonic() + DEPARTURES_FOR
        while self.monitor.poll(0):
            if time.monotonic() > end:
                self.is_behind = True
                return
            yield from self._departures()
        while self._received:
            yield from self._happened(self._received.popleft())
        self.is_behind = not self._is_empty
        if self._old_is_due:
            self._old_is_due = False
            yield from self._old_ones()
        self._seen = (self._emitted.messages, self._emitted.bytes)

    def _receive(self) -> list[_Event]:
        """What has been sent to the socket, in whatever thread this is."""
        self._is_empty = False
        found: list[_Event] = []
        addresses: dict[int, str | None] = {}
        end = time.monotonic() + SUBSCRIPTIONS_FOR
        with suppress(zmq.Again):
            while len(found) < SUBSCRIPTIONS_AT_ONCE:
                event = self._outbound.recv(zmq.NOBLOCK, copy=False)
                try:
                    fd = int(event.get(zmq.SRCFD))
                except zmq.ZMQError:
                    fd = NOT_KNOWN
                if fd not in addresses:
                    addresses[fd] = None if fd == NOT_KNOWN else tcp_progress.peer_address(fd)
                found.append(_Event(event.bytes, fd, addresses[fd]))
                if time.monotonic() > end:
                    return found
            return found
        self._is_empty = True
        return found

    def _happened(self, event: _Event) -> Iterator[tuple[Listener, bool]]:
        is_subscription = event.body[:1] == b"\x01"
        if event.fd == NOT_KNOWN:
            # Not ZMTP 3: libzmq makes up a subscription for what it takes for a peer of ZeroMQ
            # 2, and an unsubscription for each topic when a connection ends.
            self._old_came |= is_subscription
            self._old_is_due |= is_subscription
            return
        listener = self._by_fd.get(event.fd)
        if event.address is None or self._accepted.get(event.fd) != event.address:
            return  # it has gone again, and its end has been read above already
        if listener is None:
            if not is_subscription:
                return
            listener = self._by_fd[event.fd] = self._made(event.fd, event.address)
            self.came_and_went += 1
            yield listener, True
        listener.is_old = False
        listener.takes_all |= event.body == b"\x01"
        self._enter(listener, event.body)

    def _made(self, fd: int, address: str) -> Listener:
        return Listener(fd, address, tcp_progress.host_of(address), *self._seen, since=time.time())

    def _enter(self, listener: Listener, event: bytes) -> None:
        """Count what a listener has sent, and cut it off if that is too much."""
        if listener.is_cut:
            return  # what had come before
        host, size = listener.host, len(event)
        if event[:1] == b"\x00" and listener.topics:
            size = min(size, listener.topic_bytes)
            listener.topics -= 1
            listener.topic_bytes -= size
            self._host_topics[host] -= 1
            self._host_bytes[host] -= size
            return
        # What is neither is nothing that a listener sends, and counts as well.
        listener.topics += 1
        listener.topic_bytes += size
        self._host_topics[host] += 1
        self._host_bytes[host] += size
        # When a listener leaves, libzmq looks through the topics of all: hence a bound for a host
        # that is not many times as large.
        if (
            listener.topics > intake.TOPICS
            or listener.topic_bytes > intake.BYTES
            or self._host_topics[host] > intake.HOST_TOPICS
            or self._host_bytes[host] > intake.HOST_BYTES
        ):
            self._cut_greedy(listener)

    def _cut_greedy(self, listener: Listener) -> None:
        if self.cut(listener):
            what = f"{listener.topics} subscriptions, {listener.topic_bytes} bytes"
            self._greedy.append((listener.address, what))

    def greedy(self) -> Iterator[tuple[str, str]]:
        """Those who were cut off for what they sent since this was last asked: whom, and what."""
        while self._greedy:
            yield self._greedy.popleft()

    def _old_ones(self) -> Iterator[tuple[Listener, bool]]:
        """The connections that turn out to be of ZMTP 1 or 2."""
        for fd in list(self._accepted.keys() - self._by_fd.keys()):
            found = tcp_progress.of(fd)
            # In the handshake of ZMTP 3 it has got our greeting, and no message afterwards.
            if (
                found is not None
                and found.received >= 2
                and not GREETING_BYTES <= found.acked <= HANDSHAKE_BYTES
            ):
                listener = self._made(fd, self._accepted[fd])
                # It filters by itself if it speaks ZMTP 1; what it takes otherwise nobody tells.
                listener.is_old = True
                self._by_fd[fd] = listener
                self.came_and_went += 1
                yield listener, True

    def survey(self) -> None:
        """Ask the kernel how far each listener is, and what each connection has sent."""
        now, monotonic = time.time(), time.monotonic()
        passed, self._surveyed_at = monotonic - self._surveyed_at, monotonic
        self._old_is_due = self._old_came
        for fd, address in self._accepted.items():
            found = tcp_progress.of(fd)
            if found is None:
                continue  # it is going, and the monitor will say so
            level = self._levels.get(fd)
            if level is None:
                level = self._levels[fd] = intake.Level(monotonic)
            if found.received != level.received and level.enter(found.received, monotonic) > (
                intake.BYTES
            ):
                if tcp_progress.cut(fd, address, discard=True):
                    self._greedy.append((address, f"{found.received} bytes"))
                continue
            listener = self._by_fd.get(fd)
            if listener is None:
                continue
            if found.idle or found.acked != listener.acked:
                listener.since = now
            listener.acked, listener.idle = found.acked, found.idle
            listener.silent = found.silent
            listener.asked_for += min(passed, LOOKED) if found.is_asked else -listener.asked_for
            if found.idle:
                listener.idle_messages = self._emitted.messages
                listener.idle_bytes = self._emitted.bytes

    def connections(self) -> dict[int, str]:
        """All connections, addresses by descriptor. From any thread."""
        return self._accepted.copy()

    def surveyed(self, fd: int) -> int:
        """Bytes that this connection had sent when it was last looked at. From any thread."""
        level = self._levels.get(fd)
        return 0 if level is None else level.received

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
        listener.is_cut = tcp_progress.cut(listener.fd, listener.address, discard=True)
        return listener.is_cut

    def _departures(self) -> Iterator[tuple[Listener, bool]]:
        for _ in range(EVENTS_AT_ONCE):
            try:
                event, fd = sockets.monitor_event(self.monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            if event == zmq.EVENT_ACCEPTED:
                self.accepted += 1
                address = tcp_progress.peer_address(fd)
                if address is not None:
                    self._accepted[fd] = address
                    self.on_accepted(fd, address)
                continue
            self._accepted.pop(fd, None)
            self._levels.pop(fd, None)
            if fd in self._by_fd:
                self.came_and_went += 1
                gone = self._by_fd.pop(fd)
                self._host_topics[gone.host] -= gone.topics
                self._host_bytes[gone.host] -= gone.topic_bytes
                if self._host_topics[gone.host] <= 0:
                    del self._host_topics[gone.host], self._host_bytes[gone.host]
                yield gone, False

    def close(self) -> None:
        self._outbound.disable_monitor()
        self.monitor.close()
