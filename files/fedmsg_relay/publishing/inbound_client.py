"""Hand messages to a relay's inbound address, and know whether it is there.

A PUB socket that has just connected throws messages away until the relay's subscription arrives,
and says nothing; upstream sleeps and hopes. An XPUB socket is told of the subscription: once it is
here, what is sent will be delivered. It speaks the same to any relay, upstream's included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zmq

from .. import sockets
from ..config import Config
from ..errors import PublishError
from .polling import Poller

# In a child: sockets of its parent.
_inherited: list[object] = []


class InboundClient:
    """A connection to the inbound address of one relay, which may or may not answer.

    `send` waits for room for `timeout` seconds of the config at most; 0: without limit. Raises
    PublishError for an endpoint that is none.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config
    ) -> None:
        self.endpoint = endpoint
        self.in_flight: set[int] = set()  # nothing is replied to
        self.due = float("inf")  # libzmq connects again by itself
        self.socket = sockets.make(context, zmq.XPUB, config)
        # A full queue makes `send` wait rather than throw messages away.
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        wait = max(1, int(config["timeout"] * 1000)) if config["timeout"] else -1
        self.socket.setsockopt(zmq.SNDTIMEO, wait)
        self._subscribed = False
        self._lookup = sockets.look_up(endpoint)
        self._is_connected = False
        if self._lookup is None or self._lookup.is_done:
            self._connect()

    def _connect(self) -> None:
        self._is_connected = True
        try:
            sockets.connect_to(self.socket, self.endpoint, self._lookup)
        except zmq.ZMQError as error:
            self.close(linger=0)
            raise PublishError(
                f"relay_inbound: cannot connect to {self.endpoint}: {error}"
            ) from error

    def is_ready(self) -> bool:
        """Whether the relay listens now. It unsubscribes by going away, and may have come back."""
        if not self._is_connected:
            if self._lookup is None or not self._lookup.is_done:
                return False
            self._connect()
        while True:
            try:
                event = self.socket.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return self._subscribed
            # A relay subscribes to everything; anything narrower is not a relay's inbound.
            if event in (b"\x00", b"\x01"):
                self._subscribed = event == b"\x01"

    def is_lost(self) -> bool:
        return not self.is_ready()

    def forget_losses(self) -> None:
        """What counts here is whether the relay listens now."""

    def send(self, key: int, topic: bytes, body: bytes) -> bool:
        """Queue one message, waiting for room. False: it has taken nothing for so long."""
        try:
            self.socket.send_multipart([topic, body])
        except zmq.Again:
            return False
        return True

    def flush(self) -> None:
        """libzmq's thread sends what is queued."""

    def replies(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return iter(())

    def left(self) -> int:
        return 0

    def watch(self, poller: Poller) -> None:
        """Have `poller` end its wait when a relay is there."""
        if self._lookup is not None and not self._is_connected:
            poller.descriptor(self._lookup.descriptor)
        poller.socket(self.socket, zmq.POLLIN)

    def close(self, linger: int = 0) -> None:
        """Wait `linger` milliseconds at most, in the background, until what was sent has left."""
        if self._lookup is not None:
            self._lookup.close()
        self.socket.close(linger=linger)

    def abandon(self) -> None:
        """In a forked child, which has none of libzmq's threads: the socket must never be closed
        here, nor collected."""
        _inherited.append(self)
