"""One relay is away: publishers go to the other within two seconds, and listeners hear both."""

from __future__ import annotations

import uuid

import bus
import pair
import pytest
from listener import Listener
from testinfra.host import Host


@pytest.mark.parametrize("relay", pair.RELAYS)
def test_listener_hears_each_relay(relay: str, pkgs01: Host, listener: Listener) -> None:
    text = uuid.uuid4().hex
    run = pair.publish(pkgs01, text, relay)
    assert (run.rc, f"acked by tcp://{relay}:2004" in run.stderr) == (0, True)
    bus.wait_for(lambda: pair.heard_times(listener, text), "the message")


def test_publishers_take_the_first_relay_while_it_is_there(pkgs01: Host) -> None:
    run = pair.publish(pkgs01, "first")
    assert (run.rc, "acked by tcp://relay01:2004" in run.stderr) == (0, True)


def assert_fail_over(pkgs01: Host, listener: Listener) -> None:
    text = uuid.uuid4().hex
    run = pair.publish(pkgs01, text)
    assert (run.rc, "acked by tcp://relay02:2004" in run.stderr) == (0, True), run
    assert run.seconds < 2
    bus.wait_for(lambda: pair.heard_times(listener, text), "the message")


def test_relay_that_is_stopped(relay01: Host, pkgs01: Host, listener: Listener) -> None:
    bus.stop(relay01)
    try:
        assert_fail_over(pkgs01, listener)
    finally:
        bus.start(relay01)


def test_relay_that_hangs(relay01: Host, pkgs01: Host, listener: Listener) -> None:
    """Its ports are open, connections are made, and nothing comes back."""
    with pair.hanging(relay01):
        assert_fail_over(pkgs01, listener)


def test_relay_that_cannot_be_reached(pkgs01: Host, listener: Listener) -> None:
    """Nothing comes back at all."""
    with pair.cut(pkgs01, "relay01"):
        assert_fail_over(pkgs01, listener)


def test_load_over_a_hang_loses_nothing(relay01: Host, pkgs01: Host, listener: Listener) -> None:
    """What the relay had taken and not acknowledged goes to the other, too: heard twice, once lost
    never. What comes twice has the same msg_id."""
    with pair.both_loads(pkgs01) as loads:
        bus.wait_for(lambda: len(pair.numbered(listener, "one")) > 3, "some messages")
        with pair.hanging(relay01):
            before = len(pair.numbered(listener, "one"))
            bus.wait_for(
                lambda: len(pair.numbered(listener, "one")) > before + 3, "messages meanwhile", 8
            )
    for made in loads:
        assert all(run.rc == 0 for run in made.runs), made.runs
        assert not any("spooled" in run.stderr for run in made.runs), made.runs
        pair.assert_all_arrive(listener, made)


def test_restart_in_the_middle_of_forty_publishers(
    relay01: Host, pkgs01: Host, listener: Listener
) -> None:
    """They know one relay only, and none of them loses, doubles or spools a message."""
    where = pair.only(pkgs01, "relay01")
    publishers = (
        f"for n in $(seq 1 40); do fedmsg-logger --config-filename {where} --modname pair"
        " --topic forty --message $n & sleep 0.05; done; wait"
    )
    flag = pkgs01.check_output("mktemp -u")
    relay01.check_output("true")  # connected to, so that the restart comes when it is meant to
    pkgs01.check_output(f"nohup bash -c %s > {flag} 2>&1 & echo $!", f"{publishers}; echo over")
    relay01.check_output(f"sleep 0.7; systemctl restart {bus.UNIT}")
    bus.wait_for(lambda: "over" in pkgs01.file(flag).content_string, "the publishers")
    assert pkgs01.file(flag).content_string == "over\n"
    bus.wait_for(lambda: len(pair.numbered(listener, "forty")) >= 40, "all messages")
    numbers = [number for number, _ in pair.numbered(listener, "forty")]
    assert sorted(numbers) == list(range(1, 41))
