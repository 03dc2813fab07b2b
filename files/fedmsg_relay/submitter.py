"""Hand messages to a relay's submit address, where a reply means that the message is on disk there.

DEALER to ROUTER. Request: `[key, b"", topic, body]`; reply: `[key, b"", json]`, in any order, the
key being what this side chose. docs/protocol.adoc has the whole of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import zmq

from . import sockets
from .config import Config
from .errors import PublishError

# No reply is longer: an error is one line.
_LARGEST_REPLY = 1 << 20
# Names of monitors. libzmq may hold one for a moment after its socket, and its id(), are gone.
_numbers = itertools.count()


class Submitter:
    """A connection to the submit address of one relay.

    `in_flight` are the keys of what was sent over it and not answered yet.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config
    ) -> None:
        self.endpoint = endpoint
        self.in_flight: set[int] = set()
        self._connected = False
        self._lost = False
        self.socket = sockets.make(context, zmq.DEALER, config)
        self.socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_REPLY)
        # These events say whether a relay is there. Never ZMQ_IMMEDIATE and being able to write:
        # with that option libzmq takes a lost connection away between two frames of a reply that
        # is being read, and ends the process (4.3.5, `Assertion failed: !_more (src/fq.cpp:80)`).
        address = f"inproc://submitter-{next(_numbers)}"
        self.socket.monitor(address, zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._events = context.socket(zmq.PAIR)
        self._events.setsockopt(zmq.RCVHWM, 0)  # a full queue would stop libzmq's own thread
        self._events.connect(address)
        try:
            sockets.connect(self.socket, endpoint)
        except zmq.ZMQError as error:
            self.close(linger=0)
            raise PublishError(f"relay_submit: cannot connect to {endpoint}: {error}") from error

    def is_ready(self) -> bool:
        """Whether a relay is connected, and past the handshake."""
        self._read_events()
        return self._connected

    def is_lost(self) -> bool:
        """Whether a connection has ended since `forget_losses`, and with it what was in flight."""
        self._read_events()
        return self._lost

    def forget_losses(self) -> None:
        """Before the first message: attempts that failed until then concern nobody."""
        self._lost = False

    def submit(self, key: int, topic: bytes, body: bytes) -> bool:
        """Send one message. False if there is no room for it now."""
        try:
            self.socket.send_multipart([b"%d" % key, b"", topic, body], zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.in_flight.add(key)
        return True

    def replies(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Key and reply of every answer that is here. Never waits."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                key, reply = int(frames[0]), json.loads(frames[-1])
            except (ValueError, RecursionError):
                continue  # no relay says that, and what asked for it is still in flight
            if key in self.in_flight and isinstance(reply, dict):
                self.in_flight.remove(key)
                yield key, reply

    def watch(self, poller: zmq.Poller, to_send: bool) -> None:
        """Have `poller` end its wait for replies, a loss and, if there is more to send, room."""
        poller.register(self.socket, zmq.POLLIN | (zmq.POLLOUT if to_send else 0))
        poller.register(self._events, zmq.POLLIN)

    def watch_for_relay(self, poller: zmq.Poller) -> None:
        """Have `poller` end its wait when a relay is there."""
        poller.register(self._events, zmq.POLLIN)

    def close(self, linger: int) -> None:
        """What has not left is not waited for: unacknowledged, its sender still has it."""
        self.socket.disable_monitor()
        self._events.close(linger=0)
        self.socket.close(linger=0)

    def _read_events(self) -> None:
        while True:
            try:
                event, _ = sockets.monitor_event(self._events, zmq.NOBLOCK)
            except zmq.Again:
                return
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._lost = self._lost or not self._connected
