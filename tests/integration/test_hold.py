"""A hold while the relay runs: listeners are restarted, and nothing passes without them."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from typing import Any, Callable

import pytest
import zmq
from fedmsg_relay.daemon import outbound

from tests.conftest import Bus, Listener, Process, Sender, Submitter, numbered, wait_for
from tests.support.waiting import at_most, nothing_comes

MakeListener = Callable[..., Listener]


@pytest.fixture
def relay(bus: Bus) -> Process:
    bus.with_journal(http=True)
    return bus.relay()


def begin(relay: Process) -> None:
    relay.child.send_signal(signal.SIGUSR1)
    relay.wait_for_line("hold: begun")


def state(bus: Bus) -> dict[str, Any]:
    """What the relay says of itself over HTTP, a second ago at most."""
    return wait_for(lambda: dict(health(bus)["relay"]))


def health(bus: Bus) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{bus.http}/health", timeout=10) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:  # it has only just started
        return dict(json.load(error))


def test_a_listener_that_is_restarted_in_a_hold_misses_none(
    bus: Bus, relay: Process, context: zmq.Context[Any], listener: MakeListener
) -> None:
    leaving, staying = listener(relay), listener(relay)
    client, sender = Submitter(context, bus.submit), Sender(context, bus.inbound)
    assert client.submit(*numbered(0))["ok"]
    assert [leaving.receive(), staying.receive()] == [numbered(0)] * 2
    begin(relay)
    leaving.socket.close(linger=0)
    wait_for(lambda: "disconnected, 1 now" in relay.output)
    for number in range(1, 50):
        assert client.submit(*numbered(number))["ok"]  # acknowledged, so it is journaled
        sender.send(*numbered(1000 + number))
    wait_for(lambda: len(bus.journaled()) == 99)
    wait_for(lambda: state(bus)["held"] == 98)
    assert state(bus)["holds"] is True
    assert not staying.socket.poll(200)
    again = listener(relay)
    relay.child.send_signal(signal.SIGUSR2)
    expected = sorted(f"id-{number}" for number in [*range(1, 50), *range(1001, 1050)])
    for each in (staying, again):
        found = [json.loads(each.receive()[1])["msg_id"] for _ in expected]
        assert sorted(found) == expected
    relay.wait_for_line("hold: ended, 98 messages were held")
    wait_for(lambda: state(bus)["holds"] is False)
    assert client.submit(*numbered(51))["ok"]
    assert again.receive() == numbered(51)


def test_health_names_who_has_subscribed(
    bus: Bus, relay: Process, context: zmq.Context[Any], listener: MakeListener
) -> None:
    made = listener(relay)
    wait_for(lambda: len(state(bus)["listener_addresses"]) == 1)
    [address] = state(bus)["listener_addresses"]
    assert address.startswith("127.0.0.1:")
    made.socket.close(linger=0)
    wait_for(lambda: state(bus)["listener_addresses"] == [])


def test_ends_by_itself(bus: Bus, context: zmq.Context[Any], listener: MakeListener) -> None:
    """A release that never comes costs no more than that; asking again does not prolong it."""
    assert outbound.HOLD_LONGEST == 30
    longest = 6.0  # the same, and not half a minute of it
    bus.with_journal()
    relay = bus.relay_with(f"import fedmsg_relay.daemon.outbound as o\no.HOLD_LONGEST = {longest}")
    relay.wait_for_line("] ready")
    listening, client = listener(relay), Submitter(context, bus.submit)
    started = time.monotonic()
    begin(relay)
    assert client.submit(*numbered(1))["ok"]
    nothing_comes(longest / 3, lambda: listening.socket.poll(0), "what is held")
    relay.child.send_signal(signal.SIGUSR1)
    assert listening.receive() == numbered(1)
    assert time.monotonic() - started > longest
    at_most(longest + 3, since=started)
    relay.wait_for_line("hold: given up after 6 s, 1 messages were held")


def test_ends_when_too_many_messages_are_held(
    bus: Bus, relay: Process, context: zmq.Context[Any], listener: MakeListener
) -> None:
    listening, sender = listener(relay), Sender(context, bus.inbound)
    begin(relay)
    for number in range(outbound.QUEUE_MESSAGES - 1):
        sender.send(*numbered(number))
    wait_for(lambda: state(bus)["held"] == outbound.QUEUE_MESSAGES - 1, 30)
    assert not listening.socket.poll(100)
    sender.send(*numbered(outbound.QUEUE_MESSAGES - 1))
    for number in range(outbound.QUEUE_MESSAGES):
        assert listening.receive() == numbered(number)
    assert "hold: given up early, 50000 messages were held" in relay.output


def test_a_relay_that_is_stopped_in_a_hold_loses_none(
    bus: Bus, relay: Process, context: zmq.Context[Any], listener: MakeListener
) -> None:
    listening, client = listener(relay), Submitter(context, bus.submit)
    begin(relay)
    for number in range(20):
        assert client.submit(*numbered(number))["ok"]
    assert not listening.socket.poll(100)
    assert relay.terminate() == 0
    assert [listening.receive() for _ in range(20)] == [numbered(number) for number in range(20)]


def test_a_release_without_a_hold_is_nothing(
    bus: Bus, relay: Process, context: zmq.Context[Any], listener: MakeListener
) -> None:
    listening, client = listener(relay), Submitter(context, bus.submit)
    relay.child.send_signal(signal.SIGUSR2)
    assert client.submit(*numbered(1))["ok"]
    assert listening.receive() == numbered(1)
    assert "hold:" not in relay.output
