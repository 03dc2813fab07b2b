"""What may happen to a relay at night, and that it is serving again by itself."""

from __future__ import annotations

import threading

import bus
import pytest
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
    journal = relay.check_output(f"journalctl --unit {bus.UNIT} --lines 200 --output cat")
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
    bus.stop(relay)
    try:
        # Not only stopped: it exited, by itself, with 0.
        assert bus.unit_property(relay, "Result") == "success"
        assert bus.unit_property(relay, "ExecMainCode") == "1"
        assert bus.unit_property(relay, "ExecMainStatus") == "0"
        assert relay.run("fedmsg-probe --timeout 1").rc == 2
    finally:
        bus.start(relay)
    bus.probe(relay)


# Until the file is gone: connections to a port, one after the other; how many were refused.
CONNECT = """
import os, socket, sys
made, refused = 0, 0
while os.path.exists(sys.argv[1]):
    try:
        socket.create_connection(("busgateway01", int(sys.argv[2])), 10).close()
        made += 1
    except ConnectionRefusedError:
        refused += 1
print(made, refused)
"""


@pytest.mark.parametrize("port", [2003, 2004, 4001])
def test_restart_refuses_nobody(relay: Host, app01: Host, port: int) -> None:
    flag = app01.check_output("mktemp")
    counts: list[str] = []
    connect = threading.Thread(
        target=lambda: counts.append(app01.run(f"python3 -c %s {flag} {port}", CONNECT).stdout)
    )
    connect.start()
    try:
        relay.check_output(f"systemctl restart {bus.UNIT}")
    finally:
        app01.check_output(f"rm {flag}")
        connect.join()
    made, refused = map(int, counts[0].split())
    assert made > 10
    assert refused == 0


def test_relay_that_is_stopped_alone_is_started_by_whoever_comes(relay: Host, app01: Host) -> None:
    relay.check_output(f"systemctl stop {bus.UNIT}")
    assert bus.probe(app01)
    assert bus.unit_property(relay, "ActiveState") == "active"


def test_taken_port_is_named_and_taken_back_when_it_is_free(relay: Host) -> None:
    bus.stop(relay)
    starts = bus.starts(relay)
    address = relay.check_output("getent ahostsv4 busgateway01").split()[0]
    squatter = relay.check_output(
        "nohup python3 -c 'import socket, time; s = socket.socket();"
        f' s.bind(("{address}", 2004)); s.listen(); time.sleep(60)\' > /dev/null 2>&1 & echo $!'
    )
    try:
        bus.wait_for(
            lambda: relay.run(f"ss -ltn | grep -q {address}:2004").succeeded, "the squatter"
        )
        assert relay.run(f"systemctl start {bus.UNIT}").rc != 0
        said = relay.check_output(f"journalctl --unit {bus.UNIT} --lines 20 --output cat")
        assert (
            f"cannot bind tcp://{address}:2004: the port is held by a process of user root" in said
        )
        done = bus.playbook("deploy", "--limit", "busgateway01")
        assert done.returncode != 0
        assert f"port 2004 is held by process {squatter} (python3)" in done.stdout
    finally:
        relay.check_output(f"kill {squatter}")
    bus.wait_for(lambda: bus.unit_property(relay, "ActiveState") == "active", "the relay")
    assert bus.starts(relay) == starts + 1
    # Not sockets of its own: the next restart refuses nobody either. It has some if the port became
    # free just between systemd's attempt and its own; then restart it, as the SOP says.
    if relay.run(f"systemctl is-active {bus.SOCKETS}").failed:
        relay.check_output(f"systemctl restart {bus.UNIT}")
    assert relay.check_output(f"systemctl is-active {bus.SOCKETS}") == "active"
    bus.probe(relay)


def test_check_playbook_names_what_is_wrong(relay: Host) -> None:
    bus.stop(relay)
    try:
        done = bus.playbook("check", "--extra-vars", "fedmsg_base_probe_timeout_sec=1")
    finally:
        bus.start(relay)
    assert done.returncode != 0
    assert "busgateway01: WRONG: fedmsg-relay.service is inactive" in done.stdout
    assert "nobody listens on busgateway01:2003" in done.stdout
    assert "pkgs01: WRONG: FEDMSG CRITICAL" in done.stdout
