"""What may happen to a relay at night, and that it is serving again by itself."""

from __future__ import annotations

import bus
from testinfra.host import Host


def test_hanging_relay_is_restarted_by_the_watchdog(relay: Host) -> None:
    pid = bus.unit_property(relay, "MainPID")
    restarts = int(bus.unit_property(relay, "NRestarts"))
    relay.check_output(f"kill -STOP {pid}")
    try:
        bus.wait_for(
            lambda: (
                int(bus.unit_property(relay, "NRestarts")) == restarts + 1
                and bus.unit_property(relay, "ActiveState") == "active"
            ),
            "a restart by the watchdog",
            40,
        )
    finally:
        relay.run(f"kill -CONT {pid}")
    journal = relay.check_output(f"journalctl --unit {bus.UNIT} --lines 50 --output cat")
    assert "Watchdog timeout" in journal
    bus.probe(relay)


def test_killed_relay_comes_back(relay: Host) -> None:
    pid = bus.unit_property(relay, "MainPID")
    relay.check_output(f"kill -KILL {pid}")
    bus.wait_for(
        lambda: (
            bus.unit_property(relay, "MainPID") not in ("0", pid)
            and bus.unit_property(relay, "ActiveState") == "active"
        ),
        "a restart",
    )
    bus.probe(relay)


def test_restart_stops_it_cleanly(relay: Host) -> None:
    before = bus.generation(relay)
    relay.check_output(f"systemctl restart {bus.UNIT}")
    assert bus.generation(relay) != before
    bus.probe(relay)
    relay.check_output(f"systemctl stop {bus.UNIT}")
    try:
        # Not only stopped: it exited, by itself, with 0.
        assert bus.unit_property(relay, "Result") == "success"
        assert bus.unit_property(relay, "ExecMainCode") == "1"
        assert bus.unit_property(relay, "ExecMainStatus") == "0"
        assert relay.run("fedmsg-probe --timeout 1").rc == 2
    finally:
        relay.check_output(f"systemctl start {bus.UNIT}")
    bus.probe(relay)


def test_check_playbook_names_what_is_wrong(relay: Host) -> None:
    relay.check_output(f"systemctl stop {bus.UNIT}")
    try:
        done = bus.playbook("check", "--extra-vars", "fedmsg_base_probe_timeout_sec=1")
    finally:
        relay.check_output(f"systemctl start {bus.UNIT}")
    assert done.returncode != 0
    assert "busgateway01: WRONG: fedmsg-relay.service is inactive" in done.stdout
    assert "nobody listens on port 2003" in done.stdout
    assert "pkgs01: WRONG: FEDMSG CRITICAL" in done.stdout
