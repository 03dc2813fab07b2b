"""From RabbitMQ to the relay: acknowledged only when the relay has it, each message once."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.support.broker import Node
from tests.support.relays import Bus
from tests.support.waiting import wait_for

from .conftest import ROUNDS, Amqp, Bridge, numbers

MakeBridge = Callable[..., Bridge]


def stored(bus: Bus) -> list[dict[str, Any]]:
    """The relay's messages."""
    with closing(sqlite3.connect(f"file:{bus.journal}?mode=ro", uri=True)) as db:
        return [json.loads(row[0]) for row in db.execute("SELECT body FROM message ORDER BY seq")]


def make_in(make_bridge: MakeBridge, amqp: Amqp, **keys: Any) -> Bridge:
    return make_bridge(
        **{"amqp_in": ["org.*.*.amqp.#"], "amqp_queue": amqp.queue, "amqp_out": [], **keys}
    )


def test_messages_come_in_once_through_kills(bus: Bus, make_bridge: MakeBridge, amqp: Amqp) -> None:
    """kill -9 of the bridge, again and again: the relay has each of them, once."""
    bridge = make_in(make_bridge, amqp)
    bus.relay()
    chance = random.Random(2)
    rounds = max(3, ROUNDS // 4)
    for round_ in range(rounds):
        program = bridge.start()
        program.wait_for_line("in: consuming", 60)
        amqp.do("publish", 50 * round_, 50 * round_ + 50)
        at = 50 * round_ + chance.randrange(40)
        wait_for(lambda at=at: len(bus.journaled()) > at, 60, "some")  # type: ignore[misc]
        program.kill()
    bridge.start()
    wait_for(lambda: len(bus.journaled()) >= 50 * rounds, 60, "all of them")
    found = stored(bus)
    assert sorted(each["msg"]["n"] for each in found) == list(range(50 * rounds))
    assert {each["username"] for each in found} == {"amqp-bridge"}
    assert len({each["msg_id"] for each in found}) == 50 * rounds


def test_relay_that_is_away_is_waited_for(
    node: Node, bus: Bus, make_bridge: MakeBridge, amqp: Amqp
) -> None:
    """Nothing is acknowledged to the broker meanwhile, and nothing is delivered many times."""
    bridge = make_in(make_bridge, amqp)
    bridge.start().wait_for_line("in: consuming", 60)
    amqp.do("publish", 0, 20)
    assert "no relay takes messages" in bridge.wait_for_trouble("other", "in")
    listed = node.control("list_queues", "name", "messages_unacknowledged")
    assert f"{amqp.queue}\t20" in listed
    bus.relay()
    wait_for(lambda: len(bus.journaled()) == 20, 60, "all of them")
    bridge.wait_for_trouble(None, "in")
    assert bridge.health()["bridge"]["in"]["received"] == 20


def test_queue_that_is_deleted_is_made_again(bus: Bus, make_bridge: MakeBridge, amqp: Amqp) -> None:
    bridge = make_in(make_bridge, amqp)
    bus.relay()
    program = bridge.start()
    program.wait_for_line("in: consuming", 60)
    amqp.do("delete", amqp.queue)
    program.wait_for_line("was deleted", 60)
    program.wait_for_line("in: consuming", 60, count=2)
    amqp.do("publish", 0, 5)
    wait_for(lambda: len(bus.journaled()) == 5, 60, "all of them")


def test_loops_end_in_both_directions(bus: Bus, make_bridge: MakeBridge, amqp: Amqp) -> None:
    """One bus, one broker, both ways: each message crosses once."""
    inward = Amqp(amqp.node, amqp.python.parent.parent)
    amqp.bind()
    bridge = make_bridge(amqp_in=["#"], amqp_queue=inward.queue)
    bus.relay()
    bridge.start().wait_for_line("in: consuming", 60)
    try:
        amqp.do("publish", 0, 5)
        for n in range(5, 10):
            text = json.dumps({"n": n})
            assert bus.tool("logger", "--json-input", input=text).returncode == 0
        wait_for(lambda: len(bus.journaled()) == 10, 60, "all of them on the bus")
        bridge.wait_for_seq(10)
        told = wait_for(
            lambda: (found := bridge.health()["bridge"])["in"].get("loop", 0) == 5 and found,
            60,
            "what went out to be seen coming in",
        )
        assert told["out"]["loop"] == 5 and told["out"]["published"] == 5
        assert len(bus.journaled()) == 10
        assert sorted(numbers(amqp.drain())) == list(range(10))
    finally:
        inward.do("delete", inward.queue)


def test_what_is_no_message_is_set_aside(bus: Bus, make_bridge: MakeBridge, amqp: Amqp) -> None:
    bridge = make_in(make_bridge, amqp)
    bus.relay()
    bridge.start().wait_for_line("in: consuming", 60)
    amqp.do("send", "org.fedoraproject.dev.amqp.bad", "no json")
    amqp.do("publish", 0, 3)
    wait_for(lambda: len(bus.journaled()) == 3, 60, "the others")
    [line] = bridge.command("--set-aside").stdout.splitlines()
    assert "not JSON" in json.loads(line)["reason"] and json.loads(line)["body"] == "no json"
