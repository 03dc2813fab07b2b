"""Listeners that do not keep up: bounded, named, counted, and of no concern to the others."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any, Callable

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Sender, numbered, wait_for
from tests.support.waiting import at_most, fits, patient

MakeListener = Callable[..., Listener]

MISSED = re.compile(r"is back, cut off as (\S+): missed at most (\d+) messages since ([\d: -]+);")

# A process, so that its libzmq stops reading with it.
LISTENER = """
import sys, json, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.RCVHWM, 1000)
socket.setsockopt(zmq.SUBSCRIBE, sys.argv[2].encode())
socket.connect(sys.argv[1])
while True:
    print(json.loads(socket.recv_multipart()[1])["msg"]["n"], flush=True)
"""


class Stoppable:
    """A listener in a process of its own."""

    def __init__(self, bus: Bus, relay: Process, topic: str = "") -> None:
        seen = relay.output.count("connected,")
        self._process = bus.start(sys.executable, "-c", LISTENER, bus.outbound, topic)
        wait_for(lambda: relay.output.count("connected,") > seen, what="the listener to be seen")
        self.address = re.findall(r"listener (\S+) connected", relay.output)[-1]

    def stop(self) -> None:
        self._process.pause()

    def go_on(self) -> None:
        self._process.resume()

    def numbers(self) -> list[int]:
        return [int(line) for line in self._process.output.split()]


def peak_mib(relay: Process) -> float:
    with open(f"/proc/{relay.pid}/status", encoding="ascii") as status:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
    assert found
    return int(found[1]) / 1024


def flood(sender: Sender, awake: Listener, numbers: range, padding: str) -> None:
    """Send all, a few ahead of `awake`, which must get all of them in order."""
    due = iter(numbers)
    for number in numbers:
        sender.send(*numbered(number, padding=padding))
        if number % 100 == 99:
            while awake.socket.poll(0):
                assert json.loads(awake.socket.recv_multipart()[1])["msg"]["n"] == next(due)
    for number in due:
        assert json.loads(awake.receive()[1])["msg"]["n"] == number


@pytest.mark.parametrize("topic", ["", "t"], ids=["all topics", "some topics"])
def test_in_a_flood_one_that_stalls_is_cut_off_named_and_counted(
    bus: Bus,
    context: zmq.Context[Any],
    listener: MakeListener,
    topic: str,
    figure: Callable[[str, object], None],
) -> None:
    bus.with_journal()
    relay = bus.relay()
    awake = listener(relay)
    stalled = Stoppable(bus, relay, topic)
    sender = Sender(context, bus.inbound)
    flood(sender, awake, range(1000), "x")
    wait_for(lambda: len(stalled.numbers()) == 1000)
    stalled.stop()
    stopped = time.time()
    total = 61_000
    flood(sender, awake, range(1000, total), "x" * 1024)
    peak = peak_mib(relay)
    assert peak < 150
    assert f"listener {stalled.address} too slow, cut off: took nothing since" in relay.output
    stalled.go_on()
    # It connects again by itself, and hears what is new.
    relay.wait_for_line("is back, cut off as")
    address, missed, since = MISSED.findall(relay.output)[0]
    assert address == stalled.address
    # Since when: of the last it took its kernel had taken some more, so from then on at most.
    assert abs(time.mktime(time.strptime(since, "%Y-%m-%d %H:%M:%S")) - stopped) < 15
    flood(sender, awake, range(total, total + 100), "x")
    wait_for(lambda: stalled.numbers() and stalled.numbers()[-1] == total + 99)
    got = stalled.numbers()
    assert got == sorted(set(got))
    lost = total + 100 - len(got)
    assert 0 < lost <= int(missed)
    if not topic:
        figure("slow-lost", lost)
        figure("slow-missed-at-most", missed)
        figure("slow-peak-mib", round(peak))
    # An upper bound is of use if it is not far off: by what the kernels held, at most.
    assert int(missed) - lost < 25_000
    # All of it is in the backlog.
    wait_for(lambda: len(bus.journaled()) == total + 100)
    assert bus.journaled() == [f"id-{number}" for number in range(total + 100)]


def test_one_that_stalls_is_cut_off_by_bytes_before_it_has_many_messages(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    relay = bus.relay()
    awake = listener(relay)
    stalled = Stoppable(bus, relay)
    stalled.stop()
    sender = Sender(context, bus.inbound)
    for number in range(1, 200):
        sender.send(*numbered(number, padding="x" * (1 << 20)))
        assert json.loads(awake.receive()[1])["msg"]["n"] == number
    relay.wait_for_line(f"listener {stalled.address} too slow, cut off")
    assert peak_mib(relay) < 300  # 40 MiB for it, and what the allocator keeps of it
    assert relay.output.count("too slow, cut off") <= 3  # it comes back, and stalls again


def test_one_that_stalls_is_named_long_before_it_is_cut_off(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    relay = bus.relay()
    awake = listener(relay)
    stalled = Stoppable(bus, relay)
    stalled.stop()
    sender = Sender(context, bus.inbound)
    flood(sender, awake, range(40), "x" * (1 << 20))
    relay.wait_for_line(f"listener {stalled.address} takes nothing since")
    stalled.go_on()
    relay.wait_for_line(f"listener {stalled.address} is no longer stalled")
    wait_for(lambda: stalled.numbers() == list(range(40)))
    assert "cut off" not in relay.output


def test_a_full_queue_costs_the_others_milliseconds(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    """With ten stalled listeners in the way, inbound is served all the time."""
    bus.configure("z", high_water_mark=100)
    relay = bus.relay()
    awake = listener(relay)
    stalled = [Stoppable(bus, relay) for _ in range(10)]
    for one in stalled:
        one.stop()
    sender = Sender(context, bus.inbound)
    longest = 0.0
    for number in range(300):  # fewer bytes than one is cut off for
        started = time.monotonic()
        sender.send(*numbered(number, padding="x" * 100_000))
        assert json.loads(awake.receive()[1])["msg"]["n"] == number
        longest = max(longest, time.monotonic() - started)
    assert relay.output.count("too slow, cut off") >= 10
    fits(longest, 1.0)


def test_a_listener_of_one_topic_is_not_cut_off_for_the_traffic_of_others(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    relay = bus.relay()
    awake = listener(relay)
    quiet = Stoppable(bus, relay, "only.this")
    quiet.stop()
    sender = Sender(context, bus.inbound)
    body = numbered(1)[1]
    sender.send(b"only.this", body)  # its kernel takes that
    flood(sender, awake, range(0), "")
    assert json.loads(awake.receive()[1])["msg"]["n"] == 1
    flood(sender, awake, range(200), "x" * (1 << 20))
    assert "cut off" not in relay.output
    quiet.go_on()
    wait_for(lambda: quiet.numbers() == [1])


def test_a_stop_does_not_wait_for_one_that_stalls(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    bus.configure("z", zmq_linger=20_000)
    relay = bus.relay()
    awake = listener(relay)
    stalled = Stoppable(bus, relay)
    stalled.stop()
    sender = Sender(context, bus.inbound)
    flood(sender, awake, range(40), "x" * (1 << 20))
    relay.wait_for_line(f"listener {stalled.address} takes nothing since")
    started = time.monotonic()
    assert relay.terminate() == 0
    at_most(3, since=started)
    assert f"listener {stalled.address} too slow, cut off" in relay.output


def test_libzmq_by_itself_loses_them_in_silence(bus: Bus, context: zmq.Context[Any]) -> None:
    """Why the relay does otherwise: every message is taken, and most of them never arrive."""
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, 100)
    socket.bind(bus.outbound)
    listening = bus.start(sys.executable, "-c", LISTENER, bus.outbound, "")
    assert socket.poll(int(patient(20) * 1000))
    listening.pause()
    for number in range(2000):
        socket.send_multipart(numbered(number, padding="x" * 100_000), zmq.NOBLOCK)
    listening.resume()

    def hears_again() -> bool:
        socket.send_multipart(numbered(2000), zmq.NOBLOCK)
        return "2000" in listening.output.split()

    wait_for(hears_again)
    assert len(set(listening.output.split()) - {"2000"}) < 1000
