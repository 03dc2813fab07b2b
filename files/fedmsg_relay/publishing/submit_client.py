"""Hand messages to a relay's submit address, where a reply means that the message is on disk there.

DEALER to ROUTER. Request: `[key, b"", topic, body]`; reply: `[key, b"", json]`, in any order, the
key being what this side chose. docs/protocol.adoc has the whole of it.

Over a plain TCP connection, without pyzmq: see zmtp.py for why. It keeps to what libzmq does by the
same config: TCP keepalive, attempts that come after `zmq_reconnect_ivl` and then
ever more rarely, a limit to the handshake. But of a name's several addresses it takes the first
that can be connected to, see lookup.py, where libzmq knows the first one only; and there is no
thread: it does so only while it is asked, and a relay's PING is answered then.
"""

from __future__ import annotations

import json
import select
import socket
import time

from ..address import parts
from ..errors import PublishError
from ..lookup import NEXT_ADDRESS as NEXT_ADDRESS
from ..lookup import Lookup
from . import zmtp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..config import Config
    from ..lookup import Found
    from .polling import Poller

HANDSHAKE = 30.0  # seconds that it may take: libzmq's ZMQ_HANDSHAKE_IVL
LARGEST_REPLY = 1 << 20  # bytes: an error is one line
# Bytes that leave together, as far as there are so many: a relay takes them at less cost.
_TOGETHER = 1 << 16
_READ = 1 << 16
_READS = 16  # at a time: no peer sends so much that the clock is never looked at

_NEVER = float("inf")


class SubmitClient:
    """A connection to the submit address of one relay. Raises PublishError if that is none.

    `in_flight` are the keys of what was sent over it and not answered yet. `due` is the moment of
    the monotonic clock at which it wants to be asked whether it is ready, though nothing happened:
    it connects again, until it is closed.
    """

    def __init__(self, endpoint: str, config: Config) -> None:
        self.endpoint = endpoint
        self.in_flight: set[int] = set()
        self.due = _NEVER
        self._host, self._port = _host_and_port(endpoint)
        self._config = config
        self._interval = self._first_interval()
        self._is_lost = False
        self._socket: socket.socket | None = None
        self._lookup: Lookup | None = None
        self._untried: list[Found] = []  # addresses of the name
        self._racing: list[socket.socket] = []  # connections to several of them, being made
        self._race_ends = _NEVER
        self._received: list[list[bytes]] = []
        self._begin()

    def is_ready(self) -> bool:
        """Whether a relay is connected, and past the handshake."""
        self._serve()
        return self._socket is not None and self._peer.is_ready

    def is_lost(self) -> bool:
        """Whether a connection has ended since `forget_losses`, and with it what was in flight."""
        self._serve()
        return self._is_lost

    def forget_losses(self) -> None:
        """Before the first message: attempts that failed until then concern nobody."""
        self._is_lost = False

    def send(self, key: int, topic: bytes, body: bytes) -> bool:
        """Have one message sent by `flush`, or by what waits. False if there is no room for it."""
        if len(self._unsent) >= _TOGETHER:
            self.flush()
        if self._socket is None or not self._peer.is_ready or len(self._unsent) >= _TOGETHER:
            return False
        self.in_flight.add(key)
        self._unsent += zmtp.message([b"%d" % key, b"", topic, body])
        return True

    def flush(self) -> None:
        """Send what was given to `send`, as far as there is room."""
        if self._socket is None:
            return
        try:
            self._write(self._socket)
        except OSError:
            self._lose()

    def left(self) -> int:
        """Bytes of this connection that the relay's host has taken, as its kernel tells ours."""
        if self._socket is None:
            return 0
        from .. import tcp_progress

        now = tcp_progress.of(self._socket.fileno())
        return now.acked if now is not None else 0

    def replies(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Key and reply of every answer that is here. Never waits."""
        self._serve()
        received, self._received = self._received, []
        for frames in received:
            try:
                key, reply = int(frames[0]), json.loads(frames[-1])
            except (ValueError, RecursionError):
                continue  # no relay says that, and what asked for it is still in flight
            if key in self.in_flight and isinstance(reply, dict):
                self.in_flight.remove(key)
                yield key, reply

    def watch(self, poller: Poller) -> None:
        """Have `poller` end its wait for a relay that is there, replies, a loss, and for room."""
        if self._socket is not None:
            # What has not left yet was flushed, and found no room.
            poller.descriptor(self._socket.fileno(), to_write=bool(self._unsent))
        elif self._lookup is not None:
            poller.descriptor(self._lookup.descriptor)
        for racing in self._racing:
            poller.descriptor(racing.fileno(), to_write=True)

    def close(self, linger: int = 0) -> None:
        """What has not left is not waited for: unacknowledged, its sender still has it."""
        self._disconnect()
        self.due = _NEVER

    def abandon(self) -> None:
        """In a forked child: to close a descriptor here leaves the parent's open."""
        self.close()

    def _begin(self) -> None:
        """Begin an attempt. A connection that is being made is one that cannot be written yet."""
        self._unsent = bytearray(zmtp.GREETING)
        self._peer = zmtp.Peer(LARGEST_REPLY)
        self.due = _NEVER
        try:
            self._lookup = Lookup(self._host, self._port)
        except OSError:  # no more descriptors for now
            self._lose()
        self._connect()

    def _connect(self) -> None:
        if self._lookup is None or not self._lookup.is_done:
            return
        self._untried = self._lookup.found
        self._lookup.close()
        self._lookup = None
        if len(self._untried) == 1:  # nothing to choose from: the first write says what became
            try:
                self._use(self._open(self._untried.pop()))
            except OSError:
                self._lose()
        else:
            self._race_ends = time.monotonic() + HANDSHAKE
            self._race()

    def _race(self) -> None:
        """Take the first address that lets itself be connected to; try the next when it is time."""
        for racing in [one for one in self._racing if _is_over(one)]:
            self._racing.remove(racing)
            if _is_connected(racing):
                self._end_race()
                self._use(racing)
                return
            racing.close()
            self.due = 0.0  # it refuses: no reason to wait with the next
        while self._untried and (not self._racing or time.monotonic() >= self.due):
            try:
                self._racing.append(self._open(self._untried.pop(0)))
            except OSError:
                continue
            self.due = time.monotonic() + NEXT_ADDRESS
        if not self._racing:
            self._lose()
        elif not self._untried:
            self.due = self._race_ends
            if time.monotonic() >= self.due:
                self._lose()

    def _end_race(self) -> None:
        for racing in self._racing:
            racing.close()
        self._racing, self._untried = [], []

    def _open(self, found: Found) -> socket.socket:
        """Begin to connect. Raises OSError."""
        family, kind, protocol, _, address = found
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            self._set_options(made)
            made.connect_ex(address)  # what it says, the first write says, too
        except OSError:
            made.close()
            raise
        return made

    def _use(self, connecting: socket.socket) -> None:
        self._socket = connecting
        self.due = time.monotonic() + HANDSHAKE

    def _set_options(self, made: socket.socket) -> None:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keepalive = self._config["zmq_tcp_keepalive"]
        if keepalive != -1:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepalive)
            for option, key in (
                (socket.TCP_KEEPCNT, "zmq_tcp_keepalive_cnt"),
                (socket.TCP_KEEPIDLE, "zmq_tcp_keepalive_idle"),
                (socket.TCP_KEEPINTVL, "zmq_tcp_keepalive_intvl"),
            ):
                if self._config[key] > 0:
                    made.setsockopt(socket.IPPROTO_TCP, option, self._config[key])

    def _serve(self) -> None:
        """Write and read what can be, and begin the next attempt when it is time."""
        if self._socket is None:
            if self._lookup is not None:
                self._connect()
            elif self._racing:
                self._race()
            elif time.monotonic() >= self.due:
                self._begin()
        if self._socket is None:
            return
        try:
            self._read(self._socket)  # first: what a relay said before it went away still counts
            self._write(self._socket)
        except (OSError, zmtp.ProtocolError):
            self._lose()
        if self._socket is None:
            return
        if self._peer.is_ready:
            self.due = _NEVER
            self._interval = self._first_interval()
        elif time.monotonic() >= self.due:
            self._lose()

    def _write(self, connected: socket.socket) -> None:
        while True:
            if not self._unsent:  # answers wait until then: Peer bounds them, but not what waits
                self._unsent, self._peer.answers = self._peer.answers, bytearray()
            if not self._unsent:
                return
            try:
                sent = connected.send(self._unsent)
            except BlockingIOError:
                return
            del self._unsent[:sent]

    def _read(self, connected: socket.socket) -> None:
        for _ in range(_READS):
            try:
                received = connected.recv(_READ)
            except BlockingIOError:
                return
            if not received:
                raise ConnectionResetError
            try:
                self._peer.receive(received)
            finally:
                self._received += self._peer.messages
                self._peer.messages = []

    def _lose(self) -> None:
        """Close the connection, or give up the attempt, until it is time for the next one."""
        self._is_lost = self._is_lost or self._peer.is_ready
        self._disconnect()
        if self._config["zmq_reconnect_ivl"] == -1:
            self.due = _NEVER
            return
        self.due = time.monotonic() + self._interval
        longest = self._config["zmq_reconnect_ivl_max"] / 1000
        self._interval = min(2 * self._interval, max(self._interval, longest))

    def _first_interval(self) -> float:
        return float(max(1, self._config["zmq_reconnect_ivl"]) / 1000)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._lookup is not None:
            self._lookup.close()
        self._socket = self._lookup = None
        self._end_race()


def _is_over(connecting: socket.socket) -> bool:
    """Whether it is known if the connection was made."""
    poll = select.poll()
    poll.register(connecting, select.POLLOUT)
    return bool(poll.poll(0))


def _is_connected(over: socket.socket) -> bool:
    try:
        over.getpeername()
    except OSError:
        return False
    return True


def _host_and_port(endpoint: str) -> tuple[str, int]:
    found = parts(endpoint)
    if found is None:
        raise PublishError(f"relay_submit: {endpoint!a} is not an address like tcp://host:port")
    # A wildcard is what its service binds, so seen from here it is this machine.
    return ("127.0.0.1" if found[0] == "*" else found[0]), found[1]
