"""relay_policy: who may not publish a topic does not, on either way, and is named.

Peers are told apart by their addresses: those of this machine, 127.0.0.0/8.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from fedmsg_relay.checks.wire import CLOSELY

from tests.conftest import Bus, Listener, Process, Sender, Submitter, free_port, wait_for
from tests.integration.test_allow import as_from, metric, through, tools_of
from tests.integration.test_web import get, health
from tests.support.waiting import patient

__all__ = ["through"]  # a fixture

# The host of the repositories, and one of the developers.
PKGS, DEV = "127.0.0.2", "127.0.0.3"
PROD, OTHER = "org.fedoraproject.prod.git.receive", "org.fedoraproject.dev.git.receive"
RULES = {"org.fedoraproject.prod.*": [f"{PKGS}/32", "2001:db8::/32"]}


@pytest.fixture
def policed(bus: Bus) -> Bus:
    bus.with_journal(http=True, relay_policy=RULES, relay_policy_mode="refuse")
    return bus


@pytest.fixture
def relay(policed: Bus) -> Process:
    return policed.relay()


def message(number: int, topic: str = PROD, body_topic: str = "", size: int = 0) -> list[bytes]:
    body = {
        "topic": body_topic or topic,
        "timestamp": 1,
        "msg_id": f"id-{number}",
        "msg": "x" * size,
    }
    return [topic.encode(), json.dumps(body).encode()]


def count(bus: Bus, side: str, outcome: str) -> float:
    """As /metrics has it, which is up to a second old: to be waited for."""
    name = f'fedmsg_relay_policy_messages_total{{outcome="{outcome}",side="{side}"}}'
    return metric(bus, name) if name in get(bus, "/metrics") else 0.0


def test_only_who_is_named_publishes_on_the_topic(
    relay: Process, policed: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    heard = listener(relay)
    friend = Sender(context, as_from(PKGS, policed.inbound))
    stranger = Sender(context, as_from(DEV, policed.inbound))
    friend.send(*message(1))
    assert heard.receive() == message(1)
    for number in range(10, 20):
        stranger.send(*message(number))
    # The last one of its connection: all before it have been judged.
    stranger.send(*message(2, OTHER))
    assert heard.receive() == message(2, OTHER)
    asker = Submitter(context, as_from(DEV, policed.submit))
    assert asker.submit(*message(20)) == {
        "ok": False,
        "error": f"relay_policy does not let {DEV} publish '{PROD}'",
        "retry": False,
    }
    assert asker.submit(*message(3, OTHER))["ok"]
    assert heard.receive() == message(3, OTHER)
    assert Submitter(context, as_from(PKGS, policed.submit)).submit(*message(4))["ok"]
    assert heard.receive() == message(4)
    wait_for(lambda: len(policed.journaled()) == 4, what="the journal")
    assert policed.journaled() == ["id-1", "id-2", "id-3", "id-4"]
    wait_for(lambda: count(policed, "submit", "refused") == 1, what="the counts")
    assert count(policed, "inbound", "dropped") == 10
    cause = 'cause="not allowed by relay_policy"'
    assert metric(policed, f'fedmsg_relay_messages_total{{{cause},outcome="dropped"}}') == 10
    assert metric(policed, f'fedmsg_relay_submits_total{{{cause},result="refused"}}') == 1
    # One line names sender, topic and pattern, and not one for each message.
    [line] = [each for each in relay.output.splitlines() if "relay_policy" in each]
    assert (
        f"dropped: relay_policy does not let {DEV} publish '{PROD}', by '{next(iter(RULES))}'"
        in line
    )
    report = health(policed)
    assert report["healthy"] is True
    warned = f"relay_policy does not let {DEV} publish '{PROD}': 11 messages of it refused"
    assert warned in report["warnings"]


def test_marked_messages_pass_and_are_counted(
    bus: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    bus.with_journal(http=True, relay_policy=RULES, relay_policy_mode="mark")
    relay = bus.relay()
    heard = listener(relay)
    Sender(context, as_from(DEV, bus.inbound)).send(*message(1))
    assert heard.receive() == message(1)
    assert Submitter(context, as_from(DEV, bus.submit)).submit(*message(2))["ok"]
    assert heard.receive() == message(2)
    wait_for(lambda: count(bus, "submit", "marked") == 1, what="the counts")
    assert count(bus, "inbound", "marked") == 1
    assert f"marked: relay_policy does not let {DEV} publish '{PROD}'" in relay.output
    warned = f"relay_policy does not let {DEV} publish '{PROD}': 2 messages of it marked"
    assert warned in health(bus)["warnings"]
    assert bus.journaled() == ["id-1", "id-2"]


def test_while_it_is_off_nobody_is_judged(
    bus: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    bus.with_journal(http=True, relay_policy=RULES)
    relay = bus.relay()
    heard = listener(relay)
    Sender(context, as_from(DEV, bus.inbound)).send(*message(1))
    assert heard.receive() == message(1)
    assert Submitter(context, as_from(DEV, bus.submit)).submit(*message(2))["ok"]
    assert "relay_policy" not in relay.output


@pytest.mark.parametrize(
    "frames",
    [
        message(1, OTHER, PROD),  # who subscribes to dev is shown a message of prod
        message(1, PROD, OTHER),
        message(1, OTHER, PROD, 2 * CLOSELY),
        message(1, size=20 * CLOSELY),  # is checked a little at a time
        message(1, OTHER, PROD, 20 * CLOSELY),
        [b"\0".join(message(1))],  # txZMQ's one frame
        [PROD.encode(), b"no json"],
        [PROD.encode(), b'{"msg": 1}'],
        [OTHER.encode(), b'{"topic": "%s"}' % PROD.encode()],
        [OTHER.encode(), b'{"topic": "org.fedor\\u0061project.prod.git.receive"}'],
        [OTHER.encode(), b'{"topic": "a", "topic": "%s", "msg_id": "id-1", "timestamp": 1}'
         % PROD.encode()],
    ],
)  # fmt: skip
def test_no_form_of_a_message_leads_past_it(
    relay: Process,
    policed: Bus,
    context: zmq.Context[Any],
    listener: Callable[..., Listener],
    frames: list[bytes],
) -> None:
    heard = listener(relay)
    stranger = Sender(context, as_from(DEV, policed.inbound))
    stranger.send(*frames)
    asker = Submitter(context, as_from(DEV, policed.submit))
    assert asker.submit(*frames)["ok"] is False
    # What is checked a little at a time is judged after what others have sent meanwhile.
    wait_for(lambda: count(policed, "inbound", "dropped") == 1, what="the judgement")
    stranger.send(*message(2, OTHER))
    assert heard.receive() == message(2, OTHER)


def test_among_large_messages_each_is_judged_by_its_own_sender(
    relay: Process, policed: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    """They wait for each other's checks, and come out in another order than they came."""
    heard = listener(relay)
    friend = Sender(context, as_from(PKGS, policed.inbound))
    stranger = Sender(context, as_from(DEV, policed.inbound))
    for number in range(40):
        size = 20 * CLOSELY if number % 4 == 0 else 0
        friend.send(*message(number, size=size))
        stranger.send(*message(100 + number, size=size))
    got = [json.loads(heard.receive()[1])["msg_id"] for _ in range(40)]
    assert got == [f"id-{number}" for number in range(40)]
    wait_for(lambda: count(policed, "inbound", "dropped") == 40, what="the judgements")
    assert policed.journaled() == got


def test_the_tools_say_why_and_do_not_try_again(
    relay: Process, policed: Bus, through: Callable[[str, str], str]
) -> None:
    dev = tools_of(policed, DEV, through)
    told = dev("logger", "--message", "x", "--topic", "a", "--modname", PROD)
    assert told.returncode not in (0, 75)  # neither taken nor to be tried again
    assert f"relay_policy does not let {DEV} publish '{PROD}.a'" in told.stderr
    assert dev("logger", "--message", "x").returncode == 0
    pkgs = tools_of(policed, PKGS, through)
    assert pkgs("logger", "--message", "x", "--topic", "a", "--modname", PROD).returncode == 0


def test_a_peer_cannot_say_whose_it_is(
    relay: Process, policed: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    """libzmq keeps the address under a name that peers may send as well."""
    heard = listener(relay)
    host, _, port = policed.inbound.rpartition("//")[2].rpartition(":")

    def named(name: bytes, value: bytes) -> bytes:
        return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value

    ready = b"\x05READY" + named(b"Socket-Type", b"PUB") + named(b"Peer-Address", PKGS.encode())
    greeting = b"\xff" + b"\0" * 7 + b"\x01\x7f\x03\x00NULL" + b"\0" * 48
    topic, body = message(1)
    with socket.create_connection((host, int(port)), patient(20), (DEV, 0)) as connection:
        connection.sendall(greeting)
        came = b""
        # The subscription, by which a publisher knows that it may send.
        while not came.endswith(b"\x01\x01"):
            if b"NULL" in came and ready:
                connection.sendall(bytes([4, len(ready)]) + ready)
                ready = b""
            came += connection.recv(1000)
        connection.sendall(bytes([1, len(topic)]) + topic + bytes([0, len(body)]) + body)
        wait_for(lambda: count(policed, "inbound", "dropped") == 1, what="the judgement")
    Sender(context, as_from(PKGS, policed.inbound)).send(*message(2))
    assert heard.receive() == message(2)


def test_a_peer_before_zmtp_3_is_nobody(
    relay: Process, policed: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    """libzmq does not keep its address: it may publish what is everybody's."""
    heard = listener(relay)
    host, _, port = policed.inbound.rpartition("//")[2].rpartition(":")
    with socket.create_connection((host, int(port)), patient(20), (PKGS, 0)) as connection:
        connection.sendall(b"\x01\x00")  # ZMTP 1: an empty identity
        came = b""
        while not came.endswith(b"\x02\x00\x01"):  # the subscription
            came += connection.recv(1000)
        for topic, body in (message(1), message(2, OTHER)):
            for more, frame in ((1, topic), (0, body)):
                connection.sendall(bytes([len(frame) + 1, more]) + frame)
        assert heard.receive() == message(2, OTHER)
    assert f"does not let an unknown address publish '{PROD}'" in relay.output


def test_ipv4_peers_on_a_socket_of_both_versions(
    bus: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    """The kernel calls them ::ffff:127.0.0.2."""
    port = free_port()
    bus.configure(
        "zz", relay_inbound=[f"tcp://[::]:{port}"], relay_policy=RULES, relay_policy_mode="refuse"
    )
    relay = bus.relay()
    heard = listener(relay)
    Sender(context, as_from(DEV, f"tcp://127.0.0.1:{port}")).send(*message(1))
    wait_for(lambda: f"does not let {DEV} publish" in relay.output, what="the line")
    Sender(context, as_from(PKGS, f"tcp://127.0.0.1:{port}")).send(*message(2))
    assert heard.receive() == message(2)


def test_a_hostile_topic_forges_no_line(
    relay: Process, policed: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    topic = "org.fedoraproject.prod.\x1b[2J\n[forged]\u202e"
    Sender(context, as_from(DEV, policed.inbound)).send(*message(1, topic))
    wait_for(lambda: f"does not let {DEV} publish" in relay.output, what="the line")
    error = Submitter(context, as_from(DEV, policed.submit)).submit(*message(2, topic))["error"]
    for text in (relay.output, error, *health(policed)["warnings"]):
        assert not {"\x1b", "\u202e"} & set(text)
        assert not any(line.startswith("[forged]") for line in text.splitlines())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"relay_policy": {"a.*": ["10.5.1.0/16"]}},
            "config key relay_policy['a.*']: '10.5.1.0/16' is not a network",
        ),
        (
            {"relay_policy": {"a.*.b": ["10.5.0.0/16"]}},
            "config key relay_policy['a.*.b']: a pattern is a topic, or the beginning of topics",
        ),
        (
            {"relay_policy_mode": "refuse"},
            "config key 'relay_policy_mode' is 'refuse', and 'relay_policy' names no topic",
        ),
    ],
)
def test_a_policy_that_is_wrong_stops_the_start(bus: Bus, keys: dict[str, Any], said: str) -> None:
    running = bus.relay()
    running.terminate()
    bus.configure("zz", **keys)
    relay = bus.relay(ready=False)
    assert relay.child.wait(patient(20)) == 1
    assert said in relay.output
    assert "Traceback" not in relay.output


def test_its_own_probe_is_named_at_the_start_if_it_would_be_refused(bus: Bus) -> None:
    bus.configure("zz", relay_policy={"*": ["10.5.0.0/16"]}, relay_policy_mode="refuse")
    relay = bus.relay()
    assert "relay_policy['*'] does not name 127.0.0.1" in relay.output
    relay.terminate()
    bus.configure("zz", relay_policy={"*": ["127.0.0.0/8"]}, relay_policy_mode="refuse")
    assert "does not name" not in bus.relay().output
