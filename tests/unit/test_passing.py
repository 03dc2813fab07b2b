"""The way from the inbound side to the listeners keeps the order of each sender."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import zmq
from fedmsg_relay import config, tcp_progress
from fedmsg_relay.checks.wire import AT_A_GLANCE, CLOSELY, Checker
from fedmsg_relay.daemon import senders
from fedmsg_relay.daemon.desk import Desk
from fedmsg_relay.daemon.inbound import BATCH_BYTES, Inbound
from fedmsg_relay.daemon.passing import Passing
from fedmsg_relay.daemon.skipping import MANY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ports import free_address
from tests.support.waiting import wait_for

LIMIT = 16 << 20


@dataclass
class Frame:
    """Of zmq.Frame what is asked of it."""

    bytes: bytes
    more: bool
    descriptor: int

    def get(self, option: int) -> int:
        assert option == zmq.SRCFD
        return self.descriptor


class Arrived:
    """A socket that messages have arrived at, so many that the rest have not yet."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()

    def add(self, sender: int, frames: Sequence[bytes]) -> None:
        last = len(frames) - 1
        self.frames += [Frame(body, i < last, sender) for i, body in enumerate(frames)]

    def recv(self, flags: int, copy: bool) -> Frame:
        assert flags == zmq.NOBLOCK and not copy
        if not self.frames:
            raise zmq.Again(errno.EAGAIN)
        return self.frames.popleft()


class Emitted:
    """What the outbound side is given."""

    def __init__(self) -> None:
        self.topics: list[bytes] = []

    def emit(self, messages: Sequence[Sequence[bytes]]) -> None:
        self.topics += [topic for topic, _ in messages]

    def numbers(self) -> dict[int, list[int]]:
        """Of each sender, by its topics: `SENDER.NUMBER`."""
        found = defaultdict(list)
        for topic in self.topics:
            sender, number = topic.split(b".")
            found[int(sender)].append(int(number))
        return found


class Known:
    """Of Senders what the way of a message asks of them."""

    is_alarmed = False

    def took(self, heads: Sequence[object]) -> None:
        pass

    def cut_off(self, head: object) -> None:
        pass


class Counted:
    """Of Account what the way of a message asks of it."""

    def enter(self, batch: Sequence[object], seconds: float) -> None:
        pass


class Way:
    """All of the way, between a socket and what is emitted."""

    def __init__(self, inbound: Inbound) -> None:
        self.errors = 0
        self.emitted, self.known = Emitted(), Known()
        self.desk = Desk(Checker(LIMIT), self._failed)
        parts: tuple[Any, ...] = (inbound, self.desk, self.emitted, None, Counted(), self.known)
        self.passing = Passing(*parts)

    def _failed(self) -> None:
        self.errors += 1


def message(size: int, *, complete: bool) -> bytes:
    """A body of about so many bytes. What is not complete is no JSON either."""
    text = json.dumps({"topic": "t", "timestamp": 1, "msg_id": "x", "msg": "x" * size})
    return (text if complete else text[:-1]).encode()


SIZES = [0, 300, CLOSELY - 100, CLOSELY + 1, BATCH_BYTES, AT_A_GLANCE - 100, AT_A_GLANCE + 1]
BODIES = {
    (size, whole): message(size, complete=whole)
    for size, whole in itertools.product(SIZES, (True, False))
}
# One frame and three are dropped, and what has more ends in the midst of a batch.
shapes = st.one_of(
    st.sampled_from([body for key, body in BODIES.items() if key[0] <= 300]),
    st.sampled_from(list(BODIES.values())),
    st.sampled_from([1, 3, 4, 200, MANY + 1]),
)
sent = st.lists(st.tuples(st.integers(1, 4), shapes), max_size=150)


@pytest.fixture(scope="module")
def inbound() -> Iterator[Inbound]:
    context = zmq.Context()
    made = Inbound(context, config.load(None))
    made.real = made.socket  # type: ignore[attr-defined]
    yield made
    made.real.close(0)  # type: ignore[attr-defined]
    context.term()


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(st.lists(st.tuples(sent, st.booleans()), max_size=3))
def test_each_senders_messages_go_out_in_the_order_they_came(
    inbound: Inbound, arrivals: list[tuple[list[tuple[int, bytes | int]], bool]]
) -> None:
    socket = Arrived()
    inbound.socket = socket  # type: ignore[assignment]
    way = Way(inbound)
    due: dict[int, list[int]] = defaultdict(list)
    number = 0
    for messages, alarmed in arrivals:
        for sender, shape in messages:
            number += 1
            topic = b"%d.%d" % (sender, number)
            if isinstance(shape, int):
                socket.add(sender, [topic, *[b""] * (shape - 1)])
            else:
                socket.add(sender, [topic, shape])
                due[sender].append(number)
        way.known.is_alarmed = alarmed
        way.passing.relay_batches()
        way.desk.work(0.001)
    while socket.frames or not way.desk.is_idle:
        way.passing.relay_batches()
        way.desk.work(0.01)
    assert way.emitted.numbers() == due
    assert not way.errors


def test_in_one_batch_of_a_real_publisher() -> None:
    """What is small waits behind what is large, and a second publisher's does not."""
    with zmq.Context() as context:
        inbound = Inbound(context, config.load(None))
        address = free_address()
        inbound.socket.bind(address)
        publishers = [context.socket(zmq.XPUB) for _ in range(2)]
        try:
            for publisher in publishers:
                publisher.connect(address)
                # A bound socket sends its subscription when it is asked for something.
                while not publisher.poll(1):
                    inbound.socket.poll(1)
                publisher.recv()
            small, large = BODIES[300, True], BODIES[CLOSELY + 1, False]
            for number, body in enumerate([small, large, *[small] * 50]):
                publishers[0].send_multipart([b"0.%d" % number, body])
            for number in range(20):
                publishers[1].send_multipart([b"1.%d" % number, small])
            size = 51 * len(small) + len(large) + 20 * len(small)
            wait_for(lambda: arrived(int(address.rpartition(":")[2])) >= size)
            way = Way(inbound)
            wait_for(lambda: relayed(way) >= 72)
            assert way.emitted.numbers() == {0: [*range(52)], 1: [*range(20)]}
        finally:
            for publisher in publishers:
                publisher.close(0)
            inbound.close()


def relayed(way: Way) -> int:
    way.passing.relay_batches()
    way.desk.work(0.001)
    return len(way.emitted.topics)


def arrived(port: int) -> int:
    """Bytes that libzmq has read from all connections to this port of this process."""
    fds = [int(name) for name in os.listdir("/proc/self/fd")]
    theirs = [fd for fd in fds if senders.own_port(fd) == port and tcp_progress.peer_address(fd)]
    return sum(senders.bytes_read(fd) or 0 for fd in theirs)
