"""Why the relay checks: sent to it as they are, these end upstream's fedmsg-tail.

And so that test_corpus.py, where the same go through our relay, is known to be able to fail.
"""

from __future__ import annotations

from typing import Callable

import pytest
import zmq

from tests.support.waiting import wait_for

from .bus import Bus
from .corpus import CASES

# The option with which it dies, and a case of the corpus.
DEADLY = [
    ("", "text"),
    ("", "nothing"),
    ("", "no topic frame"),
    ("", "three frames"),
    ("", "Latin-1"),
    ("", "topic in Latin-1"),
    ("", "4301 digits"),
    ("", "deep lists"),
    ("--pretty", "no timestamp"),
    ("--pretty", "timestamp 1e400"),
    ("--pretty", "timestamp a date"),
    ("--pretty", "timestamp of 20 digits"),
    ("--pretty", "deep objects"),
    ("--pretty", "a string"),
    ("--pretty", "a list of messages"),
    ("--query=msg", "null"),
]


class Endpoint:
    """An endpoint with one listener, upstream's fedmsg-tail, and no relay before it."""

    def __init__(self, bus: Bus, *options: str) -> None:
        self._socket = bus.socket(zmq.XPUB)
        self._socket.bind(bus.outbound)
        self._tail = bus.upstream_tail(*options)

    def publish(self, frames: list[bytes]) -> None:
        wait_for(lambda: self._socket.poll(0), what="the tail subscribes")
        self._socket.send_multipart(frames)

    def tail_dies(self) -> bool:
        try:
            wait_for(lambda: self._tail.exit_status is not None, 10, "the tail dies")
        except AssertionError:
            return False
        return self._tail.exit_status == 1 and "Traceback" in self._tail.errors


def test_upstream_tail_dies_of_it(make_bus: Callable[..., Bus]) -> None:
    frames = {case.name: case.frames for case in CASES}
    endpoints = [Endpoint(make_bus(), *filter(None, [option])) for option, _ in DEADLY]
    for endpoint, (_, name) in zip(endpoints, DEADLY):
        endpoint.publish(frames[name])
    survived = [deadly for endpoint, deadly in zip(endpoints, DEADLY) if not endpoint.tail_dies()]
    assert survived == []


@pytest.mark.parametrize("option", ["", "--pretty", "--really-pretty"])
def test_our_tail_does_not(bus: Bus, option: str) -> None:
    """Not every endpoint of a bus is a relay's: passive services are connected to directly."""
    socket = bus.socket(zmq.XPUB)
    socket.bind(bus.outbound)
    tail = bus.tail(*([option] if option else []))
    wait_for(lambda: socket.poll(0), what="the tail subscribes")
    for case in CASES:
        socket.send_multipart(case.frames)
    socket.send_multipart([b"end", b'{"topic": "the end", "timestamp": 1, "msg_id": ""}'])
    tail.wait_for_line("the end")
    assert tail.exit_status is None
    assert "Traceback" not in tail.errors
