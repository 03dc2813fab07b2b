"""What one sender can cost the others: whatever it sends, they are served meanwhile."""

from __future__ import annotations

import json
import resource
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Sender, Submitter, numbered, wait_for
from tests.support.others import PAUSE, Others, peak, slowness, submitting
from tests.support.zmtp_peers import MORE, Peer, frame

# Bytes of memory, of the relay's process.
MEMORY = 256 << 20
LIMIT = 16 << 20

BEGIN = b'{"topic":"t","timestamp":1,"msg_id":"large","msg":'


def filled(begin: bytes, unit: bytes, end: bytes) -> bytes:
    """`unit` as often as a message may have it."""
    return begin + unit * ((LIMIT - len(begin) - len(end) - 1) // len(unit)) + end


# A relay that keeps others waiting does so each time; a machine that is slow for a moment does not.
TRIES = 3


def assert_others_are_served(bus: Bus, relay: Process, meanwhile: Callable[[], None]) -> None:
    """Their longest wait is less than PAUSE and three times that of calm times."""
    with Others(relay.pid, submitting(bus.submit)) as made:
        calm = made.calm()
        tried = []
        for _ in range(TRIES):
            made.begin()
            meanwhile()
            made.go_on(10)
            own = min(made.longest, made.longest_own)
            print(f"calm {calm:.3f} s, longest {made.longest:.3f} s, with a processor {own:.3f} s")
            if own < PAUSE + 3 * calm or own < PAUSE * slowness() + 3 * calm:
                return
            tried.append(round(own, 3))
    pytest.fail(f"others waited {tried} s, and {calm:.3f} s in calm times")


@pytest.fixture
def relay(bus: Bus) -> Iterator[Process]:
    """A relay whose journal is in memory: how long a disk takes is no matter of these tests."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        bus.with_journal(http=True)
        bus.configure("memory", relay_journal=f"{directory}/journal.db")
        yield bus.relay()


HEAVY = {
    "lists": filled(BEGIN + b"[", b"[],", b"1]}"),
    "no keys": filled(b'{"topic":"t",', b'"k":{},', b'"z":1}'),
    "nested": filled(BEGIN + b"[", b"[" * 60 + b"]" * 60 + b",", b"1]}"),
    "text": filled(b"", b"[x", b""),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_one_message_that_takes_long_to_read(
    kind: str, relay: Process, bus: Bus, context: zmq.Context[Any]
) -> None:
    receiving = Listener(context, bus.outbound, topic=b"h")
    relay.wait_for_line("1 now")
    sender = Sender(context, bus.inbound)

    def send() -> None:
        sender.send(b"h", HEAVY[kind])
        sender.send(b"h", *numbered(7)[1:])
        first, second = receiving.receive(60), receiving.receive(60)
        assert json.loads(second[1])["msg_id"] == "id-7"  # in the order they were sent
        if kind == "lists":  # as it came, unless it would take too long
            assert first[1] == HEAVY[kind]

    assert_others_are_served(bus, relay, send)
    assert peak(relay.pid) < MEMORY


def test_three_at_once_and_scripts_that_come_and_go(
    relay: Process, bus: Bus, context: zmq.Context[Any]
) -> None:
    receiving = Listener(context, bus.outbound, topic=b"t")
    relay.wait_for_line("1 now")
    sender = Sender(context, bus.inbound)
    for _ in range(3):
        sender.send(b"h", HEAVY["lists"])
    shots = [zmq.Context() for _ in range(10)]
    for number, shot in enumerate(shots):
        script = shot.socket(zmq.PUB)
        script.setsockopt(zmq.LINGER, 20_000)
        script.connect(bus.inbound)
        time.sleep(0.5)  # upstream's post_init_sleep: such a script knows no better
        script.send_multipart(numbered(number))
        script.close()
    heard = {json.loads(receiving.receive(60)[1])["msg_id"] for _ in range(10)}
    assert heard == {f"id-{number}" for number in range(10)}
    for shot in shots:
        shot.term()


@pytest.mark.parametrize("version", ["2.0", "3.0"])
@pytest.mark.parametrize("side", ["inbound", "submit"])
def test_one_message_of_very_many_frames(
    side: str, version: str, relay: Process, bus: Bus, context: zmq.Context[Any]
) -> None:
    kind = "PUB" if side == "inbound" else "DEALER"

    def send() -> None:
        peer = Peer(getattr(bus, side), version, kind).greet()
        peer.flood(frame(b"", MORE) * 8_000_000 + frame(b""), 20)
        peer.socket.close()
        if side == "inbound":  # the others' are still passed on
            Sender(context, bus.inbound).send(*numbered(1))

    assert_others_are_served(bus, relay, send)
    assert peak(relay.pid) < MEMORY


def test_a_message_of_many_frames_is_dropped_and_its_sender_named(
    relay: Process, bus: Bus, context: zmq.Context[Any]
) -> None:
    receiving = Listener(context, bus.outbound, topic=b"t")
    relay.wait_for_line("1 now")
    peer = Peer(bus.inbound, "3.0", "PUB").greet()
    peer.message(*[b"x"] * 5000)
    relay.wait_for_line("cut off: too many frames")
    assert peer.is_ended()
    assert f"publisher {peer.address} cut off: too many frames" in relay.output
    Sender(context, bus.inbound).send(*numbered(1))
    assert receiving.receive()[0] == b"t"
    dropped = wait_for(lambda: health(bus)["relay"].get("counts", {}).get("dropped"))
    assert dropped == {"not two frames": 1}
    assert health(bus)["relay"]["senders"]["cut"]["too many frames"] == 1


@pytest.mark.parametrize("side", ["inbound", "submit"])
@pytest.mark.parametrize("kind", ["unfinished", "topics"])
def test_what_waits_of_one_sender_has_a_bound(
    kind: str, side: str, relay: Process, bus: Bus
) -> None:
    """Messages whose end does not come, and such whose topics are too large."""
    large = b"x" * LIMIT
    sent = {
        "unfinished": frame(large, MORE) * 40,
        "topics": (frame(large, MORE) + frame(b"{}")) * 20,
    }[kind]

    def send() -> None:
        peer = Peer(getattr(bus, side), "3.0", "PUB" if side == "inbound" else "DEALER").greet()
        peer.flood(sent, 20)
        if kind == "unfinished":
            relay.wait_for_line(f"publisher {peer.address} cut off: too much unfinished")
        peer.socket.close()

    assert_others_are_served(bus, relay, send)
    assert peak(relay.pid) < MEMORY


@pytest.mark.parametrize("side", ["inbound", "submit"])
def test_large_messages_within_all_limits_have_a_bound_in_memory(
    side: str, relay: Process, bus: Bus, context: zmq.Context[Any]
) -> None:
    peer = Peer(getattr(bus, side), "3.0", "PUB" if side == "inbound" else "DEALER").greet()
    body = filled(BEGIN + b'"', b"a", b'"}')
    peer.flood((frame(b"", MORE) * (side == "submit") + frame(b"t", MORE) + frame(body)) * 20, 20)
    peer.socket.close()
    Sender(context, bus.inbound)  # which it has time for
    assert peak(relay.pid) < MEMORY


def test_descriptors_that_run_out_turn_newcomers_away_and_nobody_else(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    bus.with_journal(http=True)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(bus.directory / "notify"))
    notified.settimeout(20)
    relay = bus.relay(NOTIFY_SOCKET=str(bus.directory / "notify"), WATCHDOG_USEC="200000")
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(0))["ok"]
    resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (128, 128))
    host, port = bus.inbound.rpartition("//")[2].split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(200)]
    try:
        relay.wait_for_line("newcomers are turned away")
        assert client.submit(*numbered(1))["ok"]
        wait_for(lambda: any("descriptors" in line for line in health(bus)["problems"]))
        before = cpu(relay)
        for _ in range(5):  # the watchdog is fed, by then as before
            while b"WATCHDOG=1" not in notified.recv(4096):
                pass
        assert cpu(relay) - before < 0.5 * 5 * 0.1 + 0.2
    finally:
        for each in held:
            each.close()
    wait_for(lambda: Sender(context, bus.inbound))


def cpu(relay: Process) -> float:
    """Seconds of the processor that the process has taken."""
    with open(f"/proc/{relay.pid}/stat") as stat:
        return sum(map(int, stat.read().rpartition(")")[2].split()[11:13])) / 100


def health(bus: Bus) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{bus.http}/health", timeout=20) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def test_null_and_what_strict_parsers_refuse_have_a_name(
    relay: Process, bus: Bus, context: zmq.Context[Any]
) -> None:
    sender = Sender(context, bus.inbound)
    sender.send(b"t", b"null")
    sender.send(b"t", b'{"topic":"t","timestamp":1,"msg_id":"x","msg":[NaN]}')
    sender.send(*numbered(1))
    relay.wait_for_line(
        "repaired: wrapped null, topic 't'; this is what upstream's publisher sends"
    )
    relay.wait_for_line("passed on: NaN or Infinity, topic 't'")
    wait_for(lambda: health(bus)["relay"].get("counts", {}).get("untouched") == 2)
    with urllib.request.urlopen(f"http://{bus.http}/metrics", timeout=20) as answer:
        metrics = answer.read().decode()
    assert 'fedmsg_relay_messages_total{cause="wrapped null",outcome="repaired"} 1.0' in metrics
    assert 'fedmsg_relay_messages_noted_total{cause="NaN or Infinity"} 1.0' in metrics
