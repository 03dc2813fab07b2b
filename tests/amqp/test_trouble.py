"""Trouble with the broker: the bridge says which it is, and goes on by itself afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.broker import Node
from tests.support.waiting import wait_for

from .conftest import Amqp, Bridge, numbers

MakeBridge = Callable[..., Bridge]


def test_broker_that_is_killed_loses_nothing(
    tmp_path: Path, amqp_venv: Path, bus: object, make_bridge: MakeBridge
) -> None:
    """A node of its own: kill -9 while messages pass, and again while there are more."""
    own = Node(tmp_path / "own")
    try:
        own.start()
        amqp = Amqp(own, amqp_venv)
        amqp.bind()
        bridge = make_bridge(amqp_url=own.url)
        bridge.write(0, 3000)
        bridge.start()
        wait_for(lambda: bridge.confirmed() > 0, 60, "the first ones", pause=0.02)
        own.kill()
        assert "cannot be reached" in bridge.wait_for_trouble("unreachable")
        bridge.write(3000, 3100)
        own.start()
        bridge.wait_for_seq(3100)
        found = amqp.drain()
        assert set(numbers(found)) == set(range(3100))
        assert len({each["id"] for each in found}) == 3100
    finally:
        own.close()


def test_blocked_by_an_alarm(node: Node, make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge()
    bridge.write(0, 10)
    bridge.start()
    bridge.wait_for_seq(10)
    alarm = "{{resource_limit, disk, node()}, []}"
    node.evaluate(f"rabbit_alarm:set_alarm({alarm}).")
    try:
        bridge.write(10, 20)
        assert "disk" in bridge.wait_for_trouble("blocked")
        assert 'trouble{kind="blocked"} 1.0' in bridge.metrics()
    finally:
        node.evaluate("rabbit_alarm:clear_alarm({resource_limit, disk, node()}).")
    bridge.wait_for_trouble(None)
    bridge.wait_for_seq(20)
    assert bridge.health()["bridge"]["out"]["blocked_seconds"] > 0
    assert set(numbers(amqp.drain())) == set(range(20))


@pytest.fixture
def user(node: Node) -> Iterator[str]:
    node.control("add_user", "bridge", "right")
    node.control("set_permissions", "bridge", ".*", ".*", ".*")
    yield "bridge"
    node.control("delete_user", "bridge")


def test_credentials_that_are_refused(
    node: Node, user: str, make_bridge: MakeBridge, amqp: Amqp
) -> None:
    amqp.bind()
    bridge = make_bridge(amqp_url=f"amqp://{user}:wrong@127.0.0.1:{node.port}")
    bridge.write(0, 10)
    bridge.start()
    assert "refuses the user or the password" in bridge.wait_for_trouble("credentials")
    assert "wrong" not in str(bridge.health())
    node.control("change_password", user, "wrong")
    bridge.wait_for_seq(10)
    assert bridge.health()["bridge"]["out"]["trouble"] is None
    assert numbers(amqp.drain()) == list(range(10))


def test_permission_that_is_taken(
    node: Node, user: str, make_bridge: MakeBridge, amqp: Amqp
) -> None:
    amqp.bind()
    node.control("set_permissions", user, ".*", "nothing", ".*")
    bridge = make_bridge(amqp_url=f"amqp://{user}:right@127.0.0.1:{node.port}")
    bridge.write(0, 10)
    bridge.start()
    assert "amq.topic" in bridge.wait_for_trouble("permission")
    node.control("set_permissions", user, ".*", ".*", ".*")
    bridge.wait_for_seq(10)
    assert set(numbers(amqp.drain())) == set(range(10))


def test_without_a_queue_messages_are_counted(make_bridge: MakeBridge) -> None:
    bridge = make_bridge()
    bridge.write(0, 10)
    bridge.start()
    bridge.wait_for_seq(10)
    told = bridge.health()
    assert told["healthy"] and told["warnings"] == ["no queue is bound for 10 messages"]


def test_without_a_queue_messages_wait_if_told(make_bridge: MakeBridge, amqp: Amqp) -> None:
    """As after a queue was deleted."""
    bridge = make_bridge(amqp_unroutable="wait")
    bridge.write(0, 10)
    bridge.start()
    assert "no queue is bound" in bridge.wait_for_trouble("unroutable")
    amqp.bind()
    bridge.wait_for_seq(10)
    bridge.wait_for_trouble(None)
    assert set(numbers(amqp.drain())) == set(range(10))


def test_broker_that_hangs(tmp_path: Path, amqp_venv: Path, make_bridge: MakeBridge) -> None:
    own = Node(tmp_path / "own")
    try:
        own.start()
        bridge = make_bridge(amqp_url=own.url)
        bridge.write(0, 10)
        bridge.start()
        bridge.wait_for_seq(10)
        with own.paused():
            bridge.write(10, 20)
            assert "confirms nothing" in bridge.wait_for_trouble("unconfirmed")
        bridge.wait_for_seq(20)
        bridge.wait_for_trouble(None)
    finally:
        own.close()
