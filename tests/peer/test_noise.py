"""What is no message at all, from both sides: the relay stays up and goes on relaying."""

from __future__ import annotations

import random
import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
import zmq

from .bus import Bus

MESSAGE = [b"peer.noise", b'{"topic":"peer.noise","timestamp":1,"msg_id":"m"}']

# The handshake of ZMTP 3.0 with mechanism NULL, as a listener begins it, or a publisher.
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03%s"
SOCKET_TYPE = {"outbound": b"SUB", "inbound": b"PUB"}
SUBSCRIBE = b"\x00\x01\x01"

# What a connection sends, one part after each answer of the relay's.
NOISE = {
    "nothing": [],
    "one byte": [b"\xff"],
    "HTTP": [b"GET / HTTP/1.1\r\nHost: busgateway01\r\n\r\n"],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)],
    "SSH": [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "NULs": [bytes(10_000)],
    "random": [random.Random(1).randbytes(10_000)],
    # ZeroMQ 2 has no handshake, and its listeners do not subscribe: they filter.
    "ZMTP 1.0": [b"\x01\x00"],
    "ZMTP 1.0, then random": [b"\x01\x00" + random.Random(2).randbytes(1000)],
    "half a greeting": [GREETING[:30]],
    "a greeting of another version": [GREETING[:10] + b"\x09" + GREETING[11:]],
    "a greeting with another mechanism": [GREETING.replace(b"NULL", b"NONE")],
    "a greeting, then random": [GREETING, random.Random(3).randbytes(1000)],
    "a greeting and all else at once": [GREETING + READY + SUBSCRIBE],
    "a subscription": [GREETING, READY, SUBSCRIBE],
    "an unsubscription": [GREETING, READY, b"\x00\x01\x00"],
    "a subscription, then half a frame": [GREETING, READY, SUBSCRIBE + b"\x00\x40half"],
    "a message": [GREETING, READY, b"\x01\x03org\x00\x02{}"],
    "an empty frame": [GREETING, READY, b"\x00\x00"],
    "a frame of 2**63 bytes": [GREETING, READY, b"\x02\x7f" + b"\xff" * 7],
    "commands": [GREETING, READY, b"\x04\x05\x04PONG" * 100 + b"\x04\x0a\x09SUBSCRIBE"],
    "an unknown command": [GREETING, READY, b"\x04\x06\x05HELLO"],
    "random behind the handshake": [GREETING, READY, random.Random(4).randbytes(1000)],
}


def _connected(bus: Bus, side: str, noise: list[bytes]) -> socket.socket:
    """A connection that has said its part."""
    host, _, port = getattr(bus, side)[len("tcp://") :].partition(":")
    client = socket.create_connection((host, int(port)), timeout=5)
    for number, part in enumerate(noise):
        client.sendall(part.replace(READY, READY % SOCKET_TYPE[side]))
        if number + 1 < len(noise):
            # To the greeting the relay answers with its own, 64 bytes, and its READY.
            assert client.recv(64)
    return client


@pytest.mark.parametrize("side", ["inbound", "outbound"])
def test_noise_on_a_port(bus: Bus, side: str) -> None:
    relay = bus.relay()
    # Noise at the inbound port may well be a message, and does not interest here.
    with bus.listener(b"peer.") as listener, bus.publisher() as publisher, ExitStack() as clients:
        publisher.open_path_to(listener)
        for name, noise in NOISE.items():
            clients.enter_context(_connected(bus, side, noise))
            publisher.send(*MESSAGE)
            assert listener.receive() == MESSAGE, name
        # All once more, and gone at once.
        for name, noise in NOISE.items():
            _connected(bus, side, noise).close()
            publisher.send(*MESSAGE)
            assert listener.receive() == MESSAGE, name
    assert relay.exit_status is None
    assert "Traceback" not in relay.errors
    assert relay.stop() == 0


def test_listener_that_talks(bus: Bus) -> None:
    """An XSUB socket can send anything where a subscription is due."""
    relay = bus.relay()
    with bus.listener() as listener, bus.publisher() as publisher, bus.socket(zmq.XSUB) as talker:
        publisher.open_path_to(listener)
        talker.connect(bus.outbound)
        for frames in (
            [b""],
            [b"\x01"],
            [b"\x01", b"\x01"],
            [b"\x02hello"],
            [b"\x01" + b"x" * 100_000],
            [b"\x01\xff\xfe"],
            [b"hello", b"\x01", b"\x00"],
            [b"\x00never subscribed"],
            [b"\x00"],
            MESSAGE,
        ):
            talker.send_multipart(frames)
            publisher.send(*MESSAGE)
            assert listener.receive() == MESSAGE, frames
        assert not listener.hears_anything(0.2)
    assert relay.exit_status is None
    assert "Traceback" not in relay.errors
    assert relay.stop() == 0


def test_publisher_that_speaks_another_pattern(bus: Bus) -> None:
    """ZeroMQ refuses it in the handshake; nobody else notices."""
    relay = bus.relay()
    with bus.listener() as listener, bus.publisher() as publisher, ExitStack() as sockets:
        publisher.open_path_to(listener)
        for kind in (zmq.PUSH, zmq.REQ, zmq.DEALER, zmq.PAIR, zmq.SUB):
            other = sockets.enter_context(bus.socket(kind))
            other.connect(bus.inbound)
            if kind != zmq.SUB:
                other.send_multipart(MESSAGE, zmq.NOBLOCK if kind == zmq.PAIR else 0)
            publisher.send(*MESSAGE)
            assert listener.receive() == MESSAGE
        assert not listener.hears_anything(0.2)
    assert relay.exit_status is None
    assert relay.stop() == 0


def test_frame_that_could_fill_the_memory(make_bus: Callable[..., Bus]) -> None:
    """Its sender is cut off before the relay has read it; nobody else notices."""
    bus = make_bus(relay_max_message_bytes=100_000)
    relay = bus.relay()
    with bus.listener() as listener, bus.publisher() as publisher, bus.publisher() as other:
        other.open_path_to(listener)
        before = _peak_memory(relay.pid)
        publisher.send(b"peer.large", bytes(60_000_000))
        # What comes on different connections may overtake, so for a while rather than once.
        for _ in range(20):
            other.send(*MESSAGE)
            assert listener.receive() == MESSAGE
            time.sleep(0.05)
        assert not listener.hears_anything(0)
        assert _peak_memory(relay.pid) - before < 10_000_000
    assert relay.exit_status is None
    assert relay.stop() == 0


def _peak_memory(pid: int) -> int:
    """Bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
