"""Raw sockets as publishers, listeners and clients of the submit address have them."""

from __future__ import annotations

import json
import time
from typing import Any

import zmq

from .waiting import patient


class Listener:
    """A SUB socket, connected as listeners are, that is known to be subscribed."""

    def __init__(self, context: zmq.Context[Any], *endpoints: str, topic: bytes = b"") -> None:
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        for endpoint in endpoints:
            self.socket.connect(endpoint)

    def receive(self, timeout: float = 20.0) -> list[bytes]:
        assert self.socket.poll(int(patient(timeout) * 1000)), "no message arrived"
        return self.socket.recv_multipart()

    def receive_until(self, last: bytes, timeout: float = 30.0) -> list[list[bytes]]:
        """All messages up to the one whose body has `last` in it, which is left out."""
        received: list[list[bytes]] = []
        end = time.monotonic() + patient(timeout)
        while time.monotonic() < end:
            frames = self.receive(timeout)
            if last in frames[-1]:
                return received
            received.append(frames)
        raise AssertionError(f"{last!r} did not arrive")


class Sender:
    """A raw publisher, connected and subscribed to: what it sends arrives, whatever it is."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 10_000)
        self.socket.connect(endpoint)
        assert self.socket.poll(int(patient(20) * 1000)), f"no relay at {endpoint}"
        assert self.socket.recv() == b"\x01"

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)


class Submitter:
    """A raw client of the submit address; every request has a number, which its reply echoes."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(endpoint)
        self._sent = 0

    def send(self, *frames: bytes) -> int:
        self._sent += 1
        self.socket.send_multipart([b"%d" % self._sent, b"", *frames])
        return self._sent

    def reply(self, timeout: float = 20.0) -> tuple[int, dict[str, Any]]:
        """The number of the request, and what was answered, but for the time."""
        assert self.socket.poll(int(patient(timeout) * 1000)), "no reply"
        correlation, empty, frame = self.socket.recv_multipart()
        assert empty == b""
        reply = json.loads(frame)
        assert isinstance(reply.pop("time", None), float) == reply["ok"]
        return int(correlation), reply

    def submit(self, *frames: bytes, timeout: float = 20.0) -> dict[str, Any]:
        """Send one request, alone, and wait for its reply."""
        number = self.send(*frames)
        correlation, reply = self.reply(timeout)
        assert correlation == number
        return reply
