"""Health and metrics of a relay that runs: what it says of itself gets there, whatever it is."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Sender, Submitter, numbered, wait_for
from tests.integration.test_slow_listeners import Stoppable
from tests.support.waiting import nothing_comes


def get(bus: Bus, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{bus.http}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())
    except OSError:
        return ""


def health(bus: Bus) -> dict[str, Any]:
    return dict(json.loads(get(bus, "/health") or "{}"))


@pytest.fixture
def relay(bus: Bus) -> Process:
    bus.with_journal(http=True)
    made = bus.relay()
    wait_for(lambda: health(bus).get("healthy"))
    return made


def child_of(relay: Process) -> int:
    with open(f"/proc/{relay.pid}/task/{relay.pid}/children", encoding="ascii") as children:
        [child] = children.read().split()
    return int(child)


def test_every_outcome_is_counted_by_cause(
    bus: Bus, relay: Process, context: zmq.Context[Any]
) -> None:
    sender = Sender(context, bus.inbound)
    sender.send(b"t", b"not json")
    sender.send(b"t", b"\xff")
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(1))["ok"] and client.submit(*numbered(1))["ok"]
    assert client.submit(b"t", b"not json")["ok"] is False

    def lines() -> list[str]:
        return [
            line
            for line in get(bus, "/metrics").splitlines()
            if line.startswith(("fedmsg_relay_messages_total{", "fedmsg_relay_submits_total{"))
        ]

    wait_for(lambda: len(lines()) >= 6)
    assert lines() == [
        'fedmsg_relay_messages_total{cause="",outcome="untouched"} 1.0',
        'fedmsg_relay_messages_total{cause="wrapped",outcome="repaired"} 1.0',
        'fedmsg_relay_messages_total{cause="body not UTF-8",outcome="dropped"} 1.0',
        'fedmsg_relay_submits_total{cause="",result="accepted"} 1.0',
        'fedmsg_relay_submits_total{cause="",result="duplicate"} 1.0',
        'fedmsg_relay_submits_total{cause="not a complete message",result="refused"} 1.0',
    ]
    for unit in ("messages", "bytes"):
        assert f"\nfedmsg_relay_journal_waiting_{unit} 0.0\n" in get(bus, "/metrics")
    # For longer than a relay may be silent.
    nothing_comes(6, lambda: health(bus)["healthy"] is not True, "a problem")


def test_a_slow_listener_is_named(bus: Bus, relay: Process, context: zmq.Context[Any]) -> None:
    awake = Listener(context, bus.outbound)
    relay.wait_for_line("1 now")
    stalled = Stoppable(bus, relay)
    stalled.stop()
    sender = Sender(context, bus.inbound)
    for number in range(60):
        sender.send(*numbered(number, padding="x" * (1 << 20)))
        assert json.loads(awake.receive()[1])["msg"]["n"] == number
    label = f'{{address="{stalled.address}",exact="false"}}'

    def missed() -> float:
        for line in get(bus, "/metrics").splitlines():
            if line.startswith(f"fedmsg_relay_slow_listener_missed_messages{label}"):
                return float(line.split()[-1])
        return 0

    assert 1 <= wait_for(missed) <= 60
    assert f'slow_listener_since_seconds{{address="{stalled.address}"}}' in get(bus, "/metrics")
    assert any(stalled.address in warning for warning in health(bus)["warnings"])
    assert health(bus)["healthy"] is True


def test_a_relay_that_hangs_is_not_healthy(bus: Bus, relay: Process) -> None:
    with relay.paused():
        wait_for(lambda: "hangs" in str(health(bus).get("problems")))
    wait_for(lambda: health(bus)["healthy"])


def test_the_process_is_started_again(bus: Bus, relay: Process) -> None:
    first = child_of(relay)
    os.kill(first, signal.SIGKILL)
    relay.wait_for_line("http: ended with status -9, started again")
    wait_for(lambda: health(bus).get("healthy"))
    assert child_of(relay) != first


def test_the_process_ends_with_a_relay_that_is_killed(bus: Bus, relay: Process) -> None:
    child = child_of(relay)
    relay.child.kill()
    relay.child.wait()
    wait_for(lambda: not os.path.exists(f"/proc/{child}"))


def test_a_port_that_is_taken_stops_the_start(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.with_journal(http=True)
    taken = context.socket(zmq.PULL)
    taken.bind(f"tcp://{bus.http}")
    relay = bus.relay(ready=False)
    assert relay.child.wait(20) == 1
    assert f"relay_http: cannot bind tcp://{bus.http}: the port is held by" in relay.output
