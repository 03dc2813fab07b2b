"""Listeners that mean harm, or only do: nobody's messages wait for what one of them sends or does.

Numbered messages are submitted one after the other meanwhile. What counts is how long the longest
takes to be acknowledged, beside that of a calm while on the same machine.
"""

from __future__ import annotations

import json
import random
import re
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Bus, Listener, Process, Submitter, numbered, wait_for
from tests.integration.test_slow_listeners import peak_mib
from tests.integration.test_web import get, health
from tests.support.others import Beside, Others, submitting
from tests.support.zmtp_peers import Peer, command, frame, greeting, subscription

# MiB that one peer may cost the relay.
MEMORY = 256


class Hostile:
    """A relay, a publisher and a listener that are all right."""

    def __init__(self, bus: Bus, relay: Process, listener: Listener) -> None:
        self.bus, self.relay, self.listener = bus, relay, listener
        self.publisher = Others(relay.pid, submitting(bus.submit))
        self.publisher.__enter__()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """What is done meanwhile costs the publisher no more than it may: see `Beside`."""
        with (
            tempfile.TemporaryDirectory(dir=self.bus.directory) as directory,
            Beside(self.publisher, Path(directory)) as beside,
        ):
            beside.begin()
            yield
            beside.assert_undisturbed()

    def stop(self) -> int:
        """How many were acknowledged."""
        self.publisher.__exit__()
        return self.publisher.number

    def all_is_heard(self) -> None:
        """The listener that is all right has all that was acknowledged, each once, in order."""
        total = self.stop()
        for number in range(total):
            assert json.loads(self.listener.receive()[1])["msg"]["n"] == number
        assert not self.listener.socket.poll(0)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", get(self.bus, "/metrics"), re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture
def hostile(
    bus: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> Iterator[Hostile]:
    bus.with_journal(http=True)
    relay = bus.relay()
    made = Hostile(bus, relay, listener(relay))
    yield made
    made.stop()


def topics(number: int, make: Callable[[int], bytes], version: str = "3.0") -> bytes:
    return b"".join(subscription(version, make(each)) for each in range(number))


SOME = random.Random(1)
FLOODS = {
    "the same topic": lambda: subscription("3.0", b"") * 500_000,
    "other topics": lambda: topics(100_000, lambda n: b"org.fedoraproject.%d" % n),
    "topics that branch": lambda: topics(
        60_000, lambda n: bytes(255 * (n >> bit & 1) for bit in range(18))
    ),
    "random topics": lambda: topics(60_000, lambda n: SOME.randbytes(24)),
    "topics as commands": lambda: topics(60_000, lambda n: b"%d" % n, "3.1"),
    "long topics": lambda: topics(1000, lambda n: SOME.randbytes(4000)),
    "unsubscriptions": lambda: subscription("3.0", b"", cancel=True) * 500_000,
    "empty messages": lambda: frame(b"") * 500_000,
    "messages": lambda: frame(b"hello" * 10) * 100_000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_one_that_sends_very_much_is_cut_off_and_named(hostile: Hostile, flood: str) -> None:
    version = "3.1" if flood == "topics as commands" else "3.0"
    sent = FLOODS[flood]()
    peer = Peer(hostile.bus.outbound, version).greet().subscribe(b"never")
    with hostile.undisturbed():
        peer.flood(sent, 2)
        hostile.relay.wait_for_line(f"listener {peer.address} sent too much, cut off")
        assert peer.is_ended()
    assert peak_mib(hostile.relay) < 200
    name = 'fedmsg_relay_listeners_cut_off_total{cause="sent too much"}'
    wait_for(lambda: hostile.metric(name) >= 1)
    hostile.all_is_heard()


def test_many_connections_of_one_host_are_bounded_as_one(hostile: Hostile) -> None:
    sent = topics(5000, lambda n: SOME.randbytes(16))
    with ExitStack() as stack, hostile.undisturbed():
        peers = [Peer(hostile.bus.outbound, source="127.0.0.9").greet() for _ in range(40)]
        for peer in peers:
            stack.callback(peer.close)
            threading.Thread(target=peer.send, args=(sent,), daemon=True).start()
        hostile.relay.wait_for_line(" sent too much, cut off")
    assert peak_mib(hostile.relay) < MEMORY
    hostile.all_is_heard()


def test_one_with_thousands_of_topics_is_a_listener(
    hostile: Hostile, context: zmq.Context[Any]
) -> None:
    """As many as the largest known one has, of the length that they have; five at the same time."""
    sockets = []
    with hostile.undisturbed():
        for _ in range(5):
            sub = context.socket(zmq.SUB)
            sub.setsockopt(zmq.SNDHWM, 0)
            for number in range(3000):
                sub.subscribe(b"org.fedoraproject.prod.some.topic.of.%d" % number)
            sub.subscribe(b"t")
            sub.connect(hostile.bus.outbound)
            sockets.append(sub)
        for sub in sockets:
            assert sub.poll(20_000)
    assert "cut off" not in hostile.relay.output
    hostile.all_is_heard()


# What one hostile peer may do, in steps: what it sends, and whether it goes on, stops or ends.
BYTES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([greeting(version) for version in ("1.0", "2.0", "3.0", "3.1")]),
    st.binary(max_size=20).map(lambda topic: subscription("3.0", topic)),
    st.binary(max_size=20).map(lambda topic: subscription("3.1", topic)),
    st.binary(max_size=20).map(lambda topic: subscription("2.0", topic, cancel=True)),
    st.binary(max_size=30).map(lambda ping: command(b"PING", ping)),
    st.binary(max_size=30).map(lambda body: frame(body, 1)),
    st.integers(0, 2**64 - 1).map(lambda size: b"\2" + struct.pack(">Q", size)),
)
STEPS = st.lists(
    st.tuples(BYTES, st.sampled_from([1, 1, 1, 100, 20_000]), st.sampled_from(["", "", "slowly"])),
    max_size=5,
)
PEERS = st.tuples(
    st.sampled_from(["1.0", "2.0", "3.0", "3.1", "none"]), STEPS, st.sampled_from(["reset", "stay"])
)


def test_whatever_one_says_costs_nobody_anything(hostile: Hostile) -> None:
    staying: list[Peer] = []

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(PEERS)
    def say(peer_of: tuple[str, list[tuple[bytes, int, str]], str]) -> None:
        version, steps, end = peer_of
        peer = Peer(hostile.bus.outbound, "1.0" if version == "none" else version)
        if version != "none":
            peer.greet()
        for said, times, how in steps:
            sent = said * min(times, (1 << 21) // max(1, len(said)))
            if how == "slowly":
                for octet in sent[:20]:
                    peer.send(bytes((octet,)))
            else:
                peer.flood(sent, 0.2)
        if end == "stay":
            staying.append(peer)
        else:
            peer.reset()

    with hostile.undisturbed():
        say()
    assert peak_mib(hostile.relay) < MEMORY
    assert hostile.relay.is_running()
    hostile.all_is_heard()
    assert "Traceback" not in hostile.relay.output


@pytest.mark.parametrize("number_of_peers", [60, 220])
def test_many_that_stop_reading_at_once_go_at_once(
    bus: Bus, context: zmq.Context[Any], listener: Callable[..., Listener], number_of_peers: int
) -> None:
    bus.with_journal(http=True, high_water_mark=300)
    relay = bus.relay()
    hostile = Hostile(bus, relay, listener(relay))
    peers = [
        Peer(bus.outbound, source=f"127.0.1.{number}", receive_buffer=4096).greet().subscribe(b"")
        for number in range(1, number_of_peers + 1)
    ]
    relay.wait_for_line(f"connected, {number_of_peers + 1} now")
    filler = Submitter(context, bus.submit)
    with hostile.undisturbed():
        number = 1_000_000
        while relay.output.count("too slow, cut off") < len(peers):
            filler.submit(*numbered(number, padding="x" * 20_000))
            hostile.listener.receive()
            number += 1
            assert number < 1_010_000
    for peer in peers:
        assert f"listener {peer.address} too slow, cut off" in relay.output
        peer.close()
    hostile.stop()
    assert health(bus)["healthy"]
    assert "vanished" not in relay.output


def test_thousands_come_and_go(hostile: Hostile) -> None:
    """2,000 at a time, each with a topic of its own, all at once: connect, subscribe, leave."""
    with hostile.undisturbed(), ExitStack() as stack:
        peers = []
        for number in range(2000):
            peer = Peer(hostile.bus.outbound, source=f"127.0.{2 + number % 9}.1").greet()
            stack.callback(peer.close)
            peers.append(peer.subscribe(b"org.fedoraproject.prod.%d" % number))
        wait_for(lambda: hostile.metric("fedmsg_relay_listeners") == 2001, 60)
        for peer in peers:
            peer.reset()
        wait_for(lambda: hostile.metric("fedmsg_relay_listeners") == 1, 60)
    found = health(hostile.bus)
    assert found["healthy"], found["problems"]
    assert hostile.metric("fedmsg_relay_listener_connections_total") >= 2001
    # Of each host 100 lines, in a minute or in two.
    assert hostile.relay.output.count("connected,") < 9 * 2 * 100 + 10
    hostile.all_is_heard()


def test_one_that_comes_and_goes_all_the_time_is_told_of_in_few_lines(hostile: Hostile) -> None:
    with hostile.undisturbed():
        # Those who are seen, and those who are gone before that.
        seen = [Peer(hostile.bus.outbound, source="127.0.0.9").greet() for _ in range(150)]
        for peer in seen:
            peer.subscribe(b"x")
        wait_for(lambda: hostile.metric("fedmsg_relay_listeners") == 151)
        for peer in seen:
            peer.reset()
        for _ in range(850):
            Peer(hostile.bus.outbound, source="127.0.0.9").greet().subscribe(b"x").reset()
        wait_for(lambda: hostile.metric("fedmsg_relay_listener_connections_total") >= 1001)
    assert hostile.relay.output.count("127.0.0.9:") <= 200
    assert hostile.metric("fedmsg_relay_listener_changes_not_logged_total") > 0
    # All that hides nobody who is cut off.
    peer = Peer(hostile.bus.outbound, source="127.0.0.9").greet()
    peer.flood(FLOODS["other topics"](), 2)
    hostile.relay.wait_for_line(f"listener {peer.address} sent too much, cut off")
    hostile.all_is_heard()
