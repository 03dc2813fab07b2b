"""A relay's machine is gone from one moment to the next, and comes back. The last of these tests:
the machine's address may be another one then."""

from __future__ import annotations

import bus
import engine
import pair
from listener import Listener
from testinfra.host import Host


def test_relay_host_that_dies_under_load_loses_nothing(pkgs01: Host, listener: Listener) -> None:
    machine = pair.machine("relay01")
    try:
        with pair.both_loads(pkgs01) as loads:
            ones, _ = loads
            bus.wait_for(lambda: len(pair.numbered(listener, ones.topic)) > 3, "some messages")
            engine.podman("kill", "--signal=KILL", machine)
            before = len(pair.numbered(listener, ones.topic))
            bus.wait_for(
                lambda: len(pair.numbered(listener, ones.topic)) > before + 5, "messages later"
            )
        for made in loads:
            assert all(run.rc == 0 for run in made.runs), made.runs
            assert not any("spooled" in run.stderr for run in made.runs), made.runs
            pair.assert_all_arrive(listener, made)
        # One by one, a publisher waits for the lost machine as long as fail-over takes.
        assert all(run.seconds < 2.5 for run in ones.runs), ones.runs
    finally:
        engine.podman("start", machine)
    bus.wait_for(lambda: _active(machine), "the relay after the boot", 60)
    run = bus.wait_for(lambda: _acked_by_relay01(pkgs01), "the first relay again", 30)
    assert run


def _active(machine: str) -> bool:
    return (
        "active"
        in engine.podman("exec", machine, "systemctl", "is-active", bus.UNIT, check=False).split()
    )


def _acked_by_relay01(pkgs01: Host) -> bool:
    return "acked by tcp://relay01:2004" in pair.publish(pkgs01, "back").stderr
