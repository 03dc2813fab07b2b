"""What peers of the outbound side send, and an end to those who send more than a listener does.

A listener sends topics to subscribe to. libzmq's XPUB takes in all that has come of a peer within
one call, in the thread of the sockets, and while it does more comes: a peer that never ends keeps
that thread for ever. So a thread of its own looks whether the thread of the sockets is at work
inside of one call for long. Then it asks the kernel who sends so much, and ends that connection.
What is sent slowly is judged in the thread of the sockets, see fedmsg_relay.daemon.listeners.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .. import tcp_progress

# What one listener may send: topics it subscribes to, and bytes; and all of one host together. A
# hub has some hundreds of topics, the largest known listener 3,000.
TOPICS = 6000
BYTES = 256 << 10
HOST_TOPICS = 3 * TOPICS
HOST_BYTES = 3 * BYTES
# While more comes than is taken in, bytes of one host since the last survey.
HOST_BYTES_AT_ONCE = 4 * BYTES
# Bytes a second that are given back to it: pings, and topics that come and go over months.
RATE = 4 << 10

# Seconds from one look at the thread of the sockets to the next, and the part of it that the thread
# must have worked in one call to be taken for stuck. A machine that is busy gives it no more.
PERIOD = 0.03
AGAIN = 0.01
WORKED = 0.2

# A look at thousands of connections takes long, and the other thread waits for the interpreter
# meanwhile: so many times as long as it took there is none.
REST = 10

# Bytes of one connection, and of one host, since the last survey, that end it while the thread is
# stuck: what made it stuck cannot have been much fewer.
STUCK_BYTES = 192 << 10
STUCK_HOST_BYTES = 1 << 20


@dataclass
class Sender:
    """A peer that has sent more than it may: it was cut off."""

    address: str
    bytes: int


class Level:
    """How much of its allowance one connection has used up: bytes, less what was given back."""

    __slots__ = ("at", "bytes", "received")

    def __init__(self, now: float) -> None:
        self.bytes, self.received, self.at = 0.0, 0, now

    def enter(self, received: int, now: float) -> float:
        """`received` in all until `now`; the bytes that count."""
        fresh = received - self.received if received >= self.received else received
        self.bytes = max(0.0, self.bytes - RATE * (now - self.at)) + fresh
        self.received, self.at = received, now
        return self.bytes


class _Watched:
    """One thread: by its counter and by the time for which it has worked."""

    def __init__(self, turns: Callable[[], int], clock: int) -> None:
        self._turns, self._clock = turns, clock
        self._last, self._worked, self.since = -1, 0.0, 0.0

    def is_stuck(self, now: float) -> bool:
        """Whether it works, and has been at the same since it was last asked."""
        turns, worked = self._turns(), time.clock_gettime(self._clock)
        if turns != self._last:
            self._last, self._worked, self.since = turns, worked, now
            return False
        return worked - self._worked > WORKED * PERIOD


class Watch:
    """The thread that watches those which use the socket: a counter of what each has done, and it.

    `surveyed` is what a connection had sent when it was last looked at, by its descriptor; `cut`
    gathers who was cut off, until the thread of the sockets takes it from there. `known`: the
    connections that this thread knows of, addresses by descriptor.
    """

    def __init__(
        self,
        watched: Sequence[tuple[Callable[[], int], int]],
        surveyed: Callable[[int], int],
        known: Callable[[], dict[int, str]],
    ) -> None:
        self._known = known
        self._next = 0.0
        self._ports: Collection[int] = ()
        self.cut: deque[Sender] = deque()
        # Whom it has cut off last, by descriptor: libzmq may take a moment to notice.
        self._ended: dict[int, str] = {}
        self._surveyed = surveyed
        self._watched = [
            _Watched(turns, time.pthread_getcpuclockid(ident)) for turns, ident in watched
        ]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self, ports: Collection[int]) -> None:
        """Watch those who have come in on these ports."""
        self._ports = ports
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def _run(self) -> None:
        wait = PERIOD
        while not self._end.wait(wait):
            now = time.monotonic()
            stuck = [each.is_stuck(now) for each in self._watched]
            if any(
                now - each.since >= PERIOD
                for each, is_stuck in zip(self._watched, stuck)
                if is_stuck
            ):
                self.look(STUCK_BYTES, STUCK_HOST_BYTES, newcomers=True)
            wait = AGAIN if any(stuck) else PERIOD

    def look(self, most: int, most_of_host: int, *, newcomers: bool = False) -> None:
        """End the connections that have sent more bytes than that since the last survey.

        With `newcomers`, of those as well that the thread of the sockets has not heard of yet.
        """
        began = time.monotonic()
        if began < self._next:
            return
        sent: dict[int, int] = {}
        hosts: Counter[str] = Counter()
        addresses = self._known()
        if newcomers:
            for fd in tcp_progress.accepted_on(self._ports, addresses):
                address = tcp_progress.peer_address(fd)
                if address is not None:
                    addresses[fd] = address
        for fd, address in addresses.items():
            found = tcp_progress.of(fd)
            if found is None:
                continue
            before = self._surveyed(fd)
            fresh = found.received - before if found.received >= before else found.received
            if fresh:
                sent[fd] = fresh
                hosts[tcp_progress.host_of(address)] += fresh
        for fd in sorted(sent, key=lambda fd: -sent[fd]):
            host = tcp_progress.host_of(addresses[fd])
            if sent[fd] > most or hosts[host] > most_of_host:
                # Those who have sent least are left: of many on one host some get through.
                hosts[host] -= sent[fd]
                if self._ended.get(fd) != addresses[fd] and tcp_progress.cut(
                    fd, addresses[fd], discard=True
                ):
                    self._ended[fd] = addresses[fd]
                    self.cut.append(Sender(addresses[fd], sent[fd]))
        now = time.monotonic()
        self._next = now + REST * (now - began)
