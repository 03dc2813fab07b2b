"""From the journal to RabbitMQ: nothing lost, whatever ends, and doubles known by their id."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.broker import Node
from tests.support.relays import Bus
from tests.support.waiting import wait_for

from .conftest import ROUNDS, TOPIC, Amqp, Bridge, numbers, originals

MakeBridge = Callable[..., Bridge]


# Debian's own Python and pika, and the newest.
@pytest.mark.parametrize("python", ["/usr/bin/python3", None], ids=["debian", "newest"])
def test_messages_arrive_as_they_were(
    make_bridge: MakeBridge, amqp: Amqp, python: str | None
) -> None:
    amqp.bind()
    bridge = make_bridge(python)
    bodies = bridge.write(0, 50, signature="s\n", certificate="c" * 2000, username="é")
    bridge.start()
    bridge.wait_for_seq(50)
    found = amqp.drain()
    assert numbers(found) == list(range(50))
    assert originals(found) == bodies
    assert [each["id"] for each in found] == [json.loads(body)["msg_id"] for body in bodies]
    assert {each["topic"] for each in found} == {TOPIC}
    assert {each["schema"] for each in found} == {"Message"}


def test_relay_s_messages_go_out_as_they_come(
    bus: Bus, make_bridge: MakeBridge, amqp: Amqp
) -> None:
    """With a real relay, and messages of fedmsg-logger."""
    amqp.bind()
    bridge = make_bridge()
    bus.relay()
    bridge.start()
    for n in range(3):
        done = bus.tool("logger", "--json-input", "--topic", "n", input=json.dumps({"n": n}))
        assert done.returncode == 0, done.stderr
    bridge.wait_for_seq(3)
    assert numbers(amqp.drain()) == [0, 1, 2]


def has_confirmed(bridge: Bridge, number: int) -> bool:
    return bool(bridge.health().get("bridge", {}).get("out", {}).get("confirmed", 0) > number)


def test_killed_at_any_moment(make_bridge: MakeBridge, amqp: Amqp) -> None:
    """kill -9, again and again, while messages come: none is missing."""
    amqp.bind()
    bridge = make_bridge()
    bridge.write(0, 1)
    chance = random.Random(1)
    for round_ in range(ROUNDS):
        program = bridge.start()
        # Some at its start, some while it publishes.
        at = chance.randrange(-20, 90)
        bridge.write(1 + 100 * round_, 101 + 100 * round_)
        if at >= 0:
            wait_for(partial(has_confirmed, bridge, at), 60, "some confirmed", pause=0.005)
        program.kill()
    bridge.start()
    bridge.wait_for_seq(1 + 100 * ROUNDS)
    found = amqp.drain()
    assert set(numbers(found)) == set(range(1 + 100 * ROUNDS)), "none is missing"
    by_id = {each["id"]: each["body"]["n"] for each in found}
    assert len(by_id) == 1 + 100 * ROUNDS, "doubles have the id of the first"


def test_topic_too_long_is_set_aside_and_holds_up_nothing(
    make_bridge: MakeBridge, amqp: Amqp
) -> None:
    amqp.bind()
    bridge = make_bridge()
    long = "org.fedoraproject.dev." + "é" * 120
    bridge.write(0, 1)
    bridge.write(1, 3, long)
    bridge.write(3, 4)
    bridge.start()
    bridge.wait_for_seq(4)
    assert numbers(amqp.drain()) == [0, 3]
    told = bridge.health()
    assert told["healthy"] and "2 messages are set aside" in told["warnings"][0]
    listed = [json.loads(line) for line in bridge.command("--set-aside").stdout.splitlines()]
    assert [each["seq"] for each in listed] == [2, 3]
    assert "262 bytes" in listed[0]["reason"] and listed[0]["topic"] == long
    assert json.loads(listed[0]["body"])["msg"] == {"n": 1}
    assert "fedmsg_amqp_bridge_out_set_aside_messages_total 2.0" in bridge.metrics()


def test_what_does_not_go_out(make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge(amqp_out=["org.*.dev.#"], amqp_out_exclude=["#.secret.*"])
    bridge.write(0, 1)
    bridge.write(1, 2, "org.fedoraproject.stg.a")
    bridge.write(2, 3, "org.fedoraproject.dev.secret.n")
    bridge.write(3, 4, username="amqp-bridge")
    bridge.write(4, 5)
    bridge.start()
    bridge.wait_for_seq(5)
    assert numbers(amqp.drain()) == [0, 4]
    out = bridge.health()["bridge"]["out"]
    assert (out["excluded"], out["loop"]) == (2, 1)


def test_begins_with_what_comes_unless_told(make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge(amqp_from="now")
    bridge.write(0, 5)
    bridge.start().wait_for_line("beginning after seq 5")
    bridge.write(5, 7)
    bridge.wait_for_seq(7)
    assert numbers(amqp.drain()) == [5, 6]


def test_what_the_journal_trimmed_is_told_by_its_range(make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge()
    bridge.write(0, 10)
    program = bridge.start()
    bridge.wait_for_seq(10)
    program.terminate()
    bridge.write(10, 30)
    bridge.trim()
    bridge.start()
    bridge.wait_for_seq(30)
    [warning] = bridge.health()["warnings"]
    assert "trimmed 19 messages before they went out: 11 to 29" in warning
    assert "fedmsg_amqp_bridge_trimmed_messages_total 19.0" in bridge.metrics()
    assert numbers(amqp.drain()) == [*range(10), 29]


def test_another_journal_is_told_from_the_cursor_s(make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge()
    bridge.write(0, 10)
    program = bridge.start()
    bridge.wait_for_seq(10)
    program.terminate()
    bridge.bus.journal = bridge.bus.directory / "other.db"
    bridge._journal = None
    bridge.bus.configure("journal", relay_journal=str(bridge.bus.journal))
    bridge.write(100, 120)
    bridge.start().wait_for_line("is not this journal's")
    bridge.wait_for_seq(20)
    assert numbers(amqp.drain()) == [*range(10), *range(100, 120)]


def test_message_the_broker_refuses_is_found_and_set_aside(
    node: Node, make_bridge: MakeBridge, amqp: Amqp
) -> None:
    """A broker with a smaller limit closes the channel, and does not say for which message."""
    amqp.bind()
    node.evaluate("application:set_env(rabbit, max_message_size, 100000).")
    try:
        bridge = make_bridge()
        bridge.write(0, 20)
        bridge.write(20, 21, msg={"n": 20, "large": "x" * 200_000})
        bridge.write(21, 40)
        bridge.start()
        bridge.wait_for_seq(40)
    finally:
        node.evaluate("application:set_env(rabbit, max_message_size, 134217728).")
    found = amqp.drain()
    assert sorted(set(numbers(found))) == [*range(20), *range(21, 40)]
    [line] = bridge.command("--set-aside").stdout.splitlines()
    assert json.loads(line)["seq"] == 21 and "larger than" in json.loads(line)["reason"]


def test_cursor_is_shown_and_moved(make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge()
    bridge.write(0, 10)
    assert "no cursor yet" in bridge.command("--cursor").stdout
    program = bridge.start()
    bridge.wait_for_seq(10)
    refused = bridge.command("--set-cursor", "7")
    assert refused.returncode == 1 and "another bridge runs" in refused.stderr
    program.terminate()
    assert "all up to seq 10 is confirmed" in bridge.command("--cursor").stdout
    assert bridge.command("--set-cursor", "7").returncode == 0
    bridge.start()
    bridge.wait_for_seq(10)
    assert numbers(amqp.drain()) == [*range(10), 7, 8, 9]


def test_config_that_cannot_be_is_told_in_one_line(make_bridge: MakeBridge) -> None:
    bridge = make_bridge(amqp_out=["a*"])
    for options in ([], ["--check"]):
        done = bridge.command(*options)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    bridge.configure()
    assert "configuration ok: broker amqp://127.0.0.1" in bridge.command("--check").stdout
