"""What may wait in libzmq for the relay to take it: a bound on the memory that senders can fill.

libzmq bounds what waits by messages alone, a frame at a time by its size, and not at all by the
frames of a message, which it hands out when it has the last one. So the relay looks at its own
memory. When that grows, those who send much are slowed down: their windows are made small, so that
they wait. (Not by a high-water mark: one that is lowered stops a peer for ever.) When it still
grows, the connection that has had most read since a message of its own was last taken is cut off.
Small frames take a multiple of what they take on the wire: that is why memory decides, and not what
came.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import socket
import struct
import termios
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import zmq

from .. import endpoints, log, tcp_progress
from ..rate_limit import RateLimit
from .descriptors import Descriptors

# Bytes of memory from which on senders are watched, from which on one is cut off, and below
# which they are let go again. The relay without them has some 80 MiB in a burst, and
# 130 while it has a message of 16 MiB.
ALARM = 144 << 20
CUT = 168 << 20
CALM = 128 << 20

# Bytes that a connection takes by itself, whoever made it and whatever it says: no sender is to be
# slowed down for how many listeners there are.
CONNECTION = 28 << 10
# So many are in the bounds above.
USUAL = 256

# Seconds between two looks at the memory, and two at all connections while all is calm: of
# hundreds, more.
LOOK = 0.01
SURVEY = 1.0
# The most that surveys may take of all time.
SHARE = 0.01
# Seconds of one survey in one look: of thousands of connections it takes several.
SURVEY_STEP = 0.003
# Surveys for which a cut has time to show.
SETTLE = 3

# Bytes on the wire below which nobody is cut off for it.
LEAST = 256 << 10

# Peers that were cut off, for health and metrics.
REMEMBERED = 50

# Bytes of a window: of one who is to wait, and of one who need not any more.
SMALL_WINDOW = 8 << 10
ANY_WINDOW = 1 << 30

# Causes.
TOO_MUCH = "too much unfinished"
MANY_FRAMES = "too many frames"
NO_DESCRIPTORS = "no descriptors left"

# Of struct tcp_info: tcpi_bytes_received.
_RECEIVED = struct.Struct("=128xQ")
_INT = struct.Struct("=i")
# A number: the arithmetic of enumerations takes longer than the asking.
_SRCFD = int(zmq.SRCFD)

_libc = ctypes.CDLL(None)

_PAGE = os.sysconf("SC_PAGE_SIZE")

logger = logging.getLogger(log.NAME)


@dataclass
class _Connection:
    inode: int
    address: str
    host: str
    read: int = 0  # bytes that libzmq has read from it
    previous: int = 0  # the same at the survey before
    base: int = 0  # read when a message of its own was last known to have been taken, or less
    is_named: bool = False  # its messages say whose they are
    is_slowed: bool = False

    @property
    def waiting(self) -> int:
        return self.read - self.base


@dataclass(frozen=True)
class Cut:
    """A peer that was cut off, at a Unix time."""

    address: str
    cause: str
    bytes: int
    time: float


class Senders:
    """Watches those who connect to `addresses`; `look()` is to be called every LOOK seconds.

    To `others`, too, but for how many there are alone.
    """

    def __init__(self, addresses: Iterable[str], others: Iterable[str]) -> None:
        self._ports = {int(endpoints.split(address)[1]) for address in addresses}
        self._all_ports = self._ports | {int(endpoints.split(address)[1]) for address in others}
        self._connections: dict[int, _Connection] = {}
        self._seen: set[int] = set()
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._survey: Iterator[None] | None = None
        self._surveyed = 0.0
        self._survey_took = 0.0
        self._settling = 0
        self._warnings = RateLimit()
        self._descriptors = Descriptors(self._turn_away)
        # Descriptors whose memory may still be ours, and those of connections of no concern here,
        # with their inodes.
        self._most = 0
        self._others: dict[int, int] = {}
        self.is_alarmed = False
        # Since the start.
        self.counts: Counter[str] = Counter({TOO_MUCH: 0, MANY_FRAMES: 0, NO_DESCRIPTORS: 0})
        self.alarms = 0
        self.last: deque[Cut] = deque(maxlen=REMEMBERED)

    def took(self, heads: Sequence[zmq.Frame | None]) -> None:
        """Say whose messages have been taken, by their first frames."""
        if not self.is_alarmed:
            # One of many is enough while all is calm: who sends much is among them soon.
            if heads and (first := heads[0]) is not None:
                self._seen.add(sender(first))
            return
        for head in heads:
            if head is not None:
                self._seen.add(sender(head))

    def look(self) -> None:
        """Bound the memory."""
        self._descriptors.look()  # first: without any the rest cannot be done
        memory = resident(self._statm) - self._of_connections()
        if self.is_alarmed and memory < CALM:
            self._watch_closely(False)
        elif not self.is_alarmed and memory >= ALARM:
            self._watch_closely(True)
            if self._warnings.allows("memory"):
                whole = resident(self._statm)
                logger.warning("memory: %d MiB, senders are watched", whole >> 20)
        self._go_on_surveying(memory)

    def _of_connections(self) -> int:
        """Bytes that all connections take; what those took that are gone may not be free yet."""
        now = self._descriptors.in_use
        self._most = max(self._most, now)
        if self._most > now and resident(self._statm) < CALM + now * CONNECTION:
            self._most = now
        return max(0, self._most - USUAL) * CONNECTION

    def _go_on_surveying(self, memory: int) -> None:
        now = time.monotonic()
        if self._survey is None:
            pause = 0.0 if self.is_alarmed else max(SURVEY, self._survey_took / SHARE)
            if now < self._surveyed + pause:
                return
            self._survey, self._survey_took = self._surveys(), 0.0
        end = now + SURVEY_STEP
        for _ in self._survey:
            if time.monotonic() > end:
                break
        else:
            self._survey = None
            self._surveyed = time.monotonic()
            if self._settling:
                self._settling -= 1
            elif memory >= CUT:
                self._relieve()
        self._survey_took += time.monotonic() - now

    def cut_off(self, head: zmq.Frame) -> None:
        """End the connection of who has sent the message with this first frame."""
        fd = sender(head)
        address = tcp_progress.peer_address(fd) if fd >= 0 else None
        if address is None or str(head.get("Peer-Address")) not in address:
            return  # of before ZMTP 3, or it has gone
        if self._end(fd, address, MANY_FRAMES):
            self._say(Cut(address, MANY_FRAMES, 0, time.time()))

    def state(self) -> dict[str, object]:
        """For health and metrics."""
        return {
            "memory": resident(self._statm),
            "alarms": self.alarms,
            "is_alarmed": self.is_alarmed,
            "cut": dict(self.counts),
            "peers": [vars(each) for each in self.last],
            "descriptors": self._descriptors.state(),
        }

    def close(self) -> None:
        os.close(self._statm)

    def _watch_closely(self, alarmed: bool) -> None:
        self.is_alarmed = alarmed
        self.alarms += alarmed
        # What was freed meanwhile, to the system: or it would be watched for ever.
        _trim()

    def _surveys(self) -> Iterator[None]:
        """Ask the kernel what libzmq has read from each connection, one after the other."""
        found: dict[int, _Connection] = {}
        seen, self._seen = self._seen, set()
        for fd, connection in self._found():
            yield
            read = None if connection is None else bytes_read(fd)
            if connection is None or read is None:
                continue
            connection.previous, connection.read = connection.read, read
            # Of those that are not named one has sent it, and any may be the one.
            connection.is_named |= fd in seen
            if fd in seen or (-1 in seen and not connection.is_named):
                connection.base = connection.previous
            found[fd] = connection
            slow = self.is_alarmed and (connection.is_slowed or connection.waiting >= LEAST)
            if slow != connection.is_slowed:
                connection.is_slowed = slow
                set_window(fd, SMALL_WINDOW if slow else ANY_WINDOW)
        self._connections = found

    def _found(self) -> Iterable[tuple[int, _Connection | None]]:
        """Each descriptor, with the connection of a sender that it is, if it is one."""
        try:
            names = os.listdir("/proc/self/fd")
        except OSError:  # no descriptor is left for it
            return
        for name in names:
            fd = int(name)
            try:
                inode = os.fstat(fd).st_ino
            except OSError:
                continue
            known = self._connections.get(fd)
            if known is not None and known.inode == inode:
                yield fd, known
                continue
            # Of thousands of listeners each is asked once, but looked at.
            address = None
            if self._others.get(fd) != inode and own_port(fd) in self._ports:
                address = tcp_progress.peer_address(fd)
            if address is None:  # or it is the one that listens
                self._others[fd] = inode
                yield fd, None
            else:
                self._others.pop(fd, None)
                yield fd, _Connection(inode, address, tcp_progress.host_of(address))

    def _relieve(self) -> None:
        """Cut off those who have most waiting, of the host that has."""
        _trim()
        by_host: Counter[str] = Counter()
        for connection in self._connections.values():
            by_host[connection.host] += connection.waiting
        if not by_host:
            return
        host, _ = by_host.most_common(1)[0]
        theirs = {fd: c for fd, c in self._connections.items() if c.host == host}
        most = max(connection.waiting for connection in theirs.values())
        if most < LEAST:
            return
        self._settling = SETTLE
        for fd, connection in theirs.items():
            if connection.waiting >= most / 2 and self._end(fd, connection.address, TOO_MUCH):
                self._say(Cut(connection.address, TOO_MUCH, connection.waiting, time.time()))

    def _turn_away(self, fd: int) -> bool:
        """End this connection, if it is one of ours."""
        if own_port(fd) not in self._all_ports:
            return False
        address = tcp_progress.peer_address(fd)
        if address is None or not self._end(fd, address, NO_DESCRIPTORS):
            return False
        if self._warnings.allows(NO_DESCRIPTORS):
            more = "; more of these are only counted" * self._warnings.is_last(NO_DESCRIPTORS)
            logger.warning("%s turned away: %s%s", address, NO_DESCRIPTORS, more)
        return True

    def _end(self, fd: int, address: str, cause: str) -> bool:
        ended = abort(fd, address)
        self.counts[cause] += ended
        return ended

    def _say(self, cut: Cut) -> None:
        self.last.append(cut)
        if self._warnings.allows(cut.cause):
            more = "; more of these are only counted" * self._warnings.is_last(cut.cause)
            logger.warning(
                "publisher %s cut off: %s, %d KiB of it wait, memory %d MiB%s",
                cut.address, cut.cause, cut.bytes >> 10, resident(self._statm) >> 20, more,
            )  # fmt: skip


def bytes_read(fd: int) -> int | None:
    """Bytes of a TCP connection that its program has read; None if it is one no longer."""
    try:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
        unread = _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, _INT.pack(0)))[0]
    except OSError:
        return None
    finally:
        connection.detach()
    return _RECEIVED.unpack(info)[0] - unread if len(info) == _RECEIVED.size else None


def set_window(fd: int, most: int) -> None:
    """Bound what the peer of a TCP connection may send ahead of what is read, in bytes."""
    try:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    except OSError:
        return
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, most)
    except OSError:
        pass  # it has gone
    finally:
        connection.detach()


def abort(fd: int, address: str) -> bool:
    """End the connection, if it still is the one with that peer, with all that is not read yet.

    A shutdown would leave that to be read: megabytes.
    """
    if tcp_progress.peer_address(fd) != address:
        return False
    # connect() with AF_UNSPEC, which Python's socket does not offer: see connect(2).
    return bool(_libc.connect(fd, bytes(16), 16) == 0)


def sender(head: zmq.Frame | None) -> int:
    """The descriptor that a message has come in on, by its first frame; -1 if that is not known."""
    if head is None:  # it was not kept
        return -1
    try:
        return int(head.get(_SRCFD))
    except zmq.ZMQError:  # of before ZMTP 3
        return -1


def resident(statm: int) -> int:
    """Bytes of memory of this process; `statm` is its open /proc/self/statm."""
    return int(os.pread(statm, 100, 0).split()[1]) * _PAGE


def keep_memory_small() -> None:
    """Have the C library give large blocks back to the system when they are freed.

    By itself it keeps more and more of them, since a large one may be asked for again.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:  # glibc's
        mallopt(_M_MMAP_THRESHOLD, 512 << 10)
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _trim() -> None:
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def own_port(fd: int) -> int | None:
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        name = connection.getsockname()
        return name[1] if isinstance(name, tuple) and len(name) > 1 else None
    except OSError:
        return None
    finally:
        connection.detach()
