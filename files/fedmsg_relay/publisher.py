"""Hand messages to a relay's inbound address, and know whether it is there.

A PUB socket that has just connected throws messages away until the relay's subscription arrives,
and says nothing; upstream sleeps and hopes. An XPUB socket is told of the subscription: once it is
here, what is sent will be delivered. It speaks the same to any relay, upstream's included.
"""

from __future__ import annotations

import time

import zmq

from . import sockets
from .config import Config
from .errors import PublishError

# Seconds after which the next relay of the list is tried beside those that have not answered yet.
STAGGER = 0.25


class Publisher:
    """A connection to the first relay of `relay_inbound` that answers."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._context = zmq.Context(io_threads=config["io_threads"])
        self._relay: _Candidate | None = None

    @property
    def endpoint(self) -> str | None:
        """The address of the relay in use, as the config writes it."""
        return self._relay.endpoint if self._relay else None

    def connect(self) -> None:
        """Find a relay that takes messages, within `timeout` seconds. Raises PublishError."""
        if self._relay is not None:
            if self._relay.is_subscribed():
                return
            self._relay.close(linger=self._config["zmq_linger"])
            self._relay = None
        self._relay = self._first_to_answer()

    def send(self, topic: bytes, body: bytes) -> None:
        """Send one message, connecting first where need be. Raises PublishError."""
        self.connect()
        assert self._relay is not None
        self._relay.send(topic, body, self._timeout_ms())

    def close(self) -> None:
        """Wait `zmq_linger` milliseconds at most until what was sent has left, and close."""
        if self._relay is not None:
            self._relay.close(linger=self._config["zmq_linger"])
            self._relay = None
        self._context.term()

    def _timeout_ms(self) -> int:
        return int(self._config["timeout"] * 1000) or -1

    def _first_to_answer(self) -> _Candidate:
        endpoints = self._config["relay_inbound"]
        if not endpoints:
            raise PublishError("config key relay_inbound is empty: there is no relay to publish to")
        started = time.monotonic()
        end = started + (self._config["timeout"] or float("inf"))
        candidates: list[_Candidate] = []
        poller = zmq.Poller()
        try:
            while time.monotonic() < end:
                waited = time.monotonic() - started
                due = min(len(endpoints), 1 + int(waited / STAGGER))
                for endpoint in endpoints[len(candidates) : due]:
                    candidate = _Candidate(self._context, endpoint, self._config)
                    candidates.append(candidate)
                    poller.register(candidate.socket, zmq.POLLIN)
                all_tried = len(candidates) == len(endpoints)
                next_due = end if all_tried else started + len(candidates) * STAGGER
                poller.poll(_ms_until(min(next_due, end)))
                for candidate in candidates:  # in the order of the list: the first one is preferred
                    if candidate.is_subscribed():
                        candidates.remove(candidate)
                        return candidate
        finally:
            for candidate in candidates:
                candidate.close(linger=0)
        # Only now: its imports are of no use to a message that gets through.
        from . import diagnosis

        reasons = "; ".join(f"{e}: {diagnosis.why_no_answer(e)}" for e in endpoints)
        raise PublishError(f"no relay answered within {self._config['timeout']:g} s: {reasons}")


class _Candidate:
    """One address of a relay that may or may not answer."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, config: Config
    ) -> None:
        self.endpoint = endpoint
        self.socket = sockets.make(context, zmq.XPUB, config)
        # A full queue makes `send` wait rather than throw messages away.
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._subscribed = False
        try:
            sockets.connect(self.socket, endpoint)
        except zmq.ZMQError as error:
            self.close(linger=0)
            raise PublishError(f"relay_inbound: cannot connect to {endpoint}: {error}") from error

    def is_subscribed(self) -> bool:
        """Whether the relay listens now. It unsubscribes by going away, and may have come back."""
        while True:
            try:
                event = self.socket.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return self._subscribed
            # A relay subscribes to everything; anything narrower is not a relay's inbound.
            if event in (b"\x00", b"\x01"):
                self._subscribed = event == b"\x01"

    def send(self, topic: bytes, body: bytes, timeout_ms: int) -> None:
        self.socket.setsockopt(zmq.SNDTIMEO, timeout_ms)
        try:
            self.socket.send_multipart([topic, body])
        except zmq.Again:
            raise PublishError(
                f"{self.endpoint} has taken nothing for {timeout_ms / 1000:g} s, its queue is full"
            ) from None

    def close(self, linger: int) -> None:
        self.socket.close(linger=linger)


def _ms_until(moment: float) -> int | None:
    if moment == float("inf"):
        return None
    return max(0, int((moment - time.monotonic()) * 1000) + 1)
