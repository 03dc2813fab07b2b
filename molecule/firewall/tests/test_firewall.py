"""The networks of relay_allow get in, by both kinds of firewall and without; nobody else does.

In the order of the file: the last test takes the firewalls away.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import bus
import flow
import pytest
from listener import listening
from testinfra.host import Host

# Whole deploys, on a machine that may be busy with others.
pytestmark = pytest.mark.timeout(600)

RELAYS = ("relay01", "relay02")
PORTS = (2003, 2004, 4001, 4002)
ALLOWED = json.loads(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "allow.json").read_text())
SERVICES = {"relay01": "nftables", "relay02": "firewalld"}

# What a TCP connection to each port meets.
CONNECT = """
import json, socket, sys
found = {}
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=0.7).close()
        found[port] = "open"
    except TimeoutError:
        found[port] = "filtered"
    except OSError as error:
        found[port] = str(error)
print(json.dumps(found))
"""


def met(host: Host, relay: str, *ports: int) -> dict[int, str]:
    numbers = " ".join(map(str, ports))
    said = host.check_output(f"python3 -c %s {relay} {numbers}", CONNECT)
    return {int(port): what for port, what in json.loads(said).items()}


def assert_closed_to_strangers_alone(pkgs01: Host, stranger01: Host, *relays: str) -> None:
    for relay in relays or RELAYS:
        assert met(stranger01, relay, *PORTS) == dict.fromkeys(PORTS, "filtered"), relay
        assert met(pkgs01, relay, *PORTS) == dict.fromkeys(PORTS, "open"), relay
        # What the admin had opened to all is so still.
        assert met(stranger01, relay, 22) == {22: "open"}, relay
    assert bus.probe(pkgs01).startswith("FEDMSG OK")


def address(host: Host) -> str:
    return host.check_output("hostname --all-ip-addresses").split()[0]


def admins_rules(relay01: Host) -> str:
    """The whole of nftables' rules without those of ours."""
    return relay01.check_output(
        "nft list ruleset | grep -v fedmsg-relay | sed '/^table inet fedmsg_relay/,/^}/d'"
    )


def allow(networks: list[str]) -> tuple[str, str]:
    return "-e", json.dumps({"fedmsg_base_relay_allow": networks})


def test_those_who_are_named_reach_both_relays(pkgs01: Host, stranger01: Host) -> None:
    assert_closed_to_strangers_alone(pkgs01, stranger01)


def test_rules_of_others_are_as_they_were(relay01: Host, relay02: Host) -> None:
    before = admins_rules(relay01)
    relay01.check_output("nft -f /etc/nftables.conf")  # by hand: ours are gone, too
    assert "fedmsg" not in relay01.check_output("nft list ruleset")
    assert admins_rules(relay01) == before
    assert bus.changed_tasks(bus.deploy("--limit", "relay01")) == {
        (
            "fedmsg_relay : firewall | Ensure the ports are open to the networks of"
            " fedmsg_base_relay_allow alone",
            "relay01",
        )
    }
    zone = relay02.check_output("firewall-cmd --zone=public --list-all")
    assert 'rule family="ipv4" source address="192.0.2.1" drop' in zone
    assert "2003" not in zone


def test_networks_come_after_what_the_admin_drops_and_before_what_drops_all(relay01: Host) -> None:
    chain = relay01.check_output("nft list chain inet filter input").splitlines()
    assert "@banned drop" in chain[-5]
    assert '"ours"' in chain[-4]
    assert "fedmsg-relay" in chain[-3]
    # Nothing of IPv6 is named, so there is nothing to open.
    assert "fedmsg" not in relay01.check_output("nft list table ip6 closed")


def test_it_lasts_over_a_restart_of_either_firewall(
    relay01: Host, relay02: Host, pkgs01: Host, stranger01: Host
) -> None:
    """As at boot: the rules come from what is on disk."""
    with (
        listening(pkgs01) as heard,
        flow.flowing(pkgs01, [flow.Heard(pkgs01, heard.path)]) as numbered,
    ):
        for command in ("reload nftables", "restart nftables"):
            relay01.check_output(f"systemctl {command}")
            assert_closed_to_strangers_alone(pkgs01, stranger01, "relay01")
        for command in ("firewall-cmd --reload", "systemctl restart firewalld"):
            relay02.check_output(command)
            assert_closed_to_strangers_alone(pkgs01, stranger01, "relay02")
        numbered.stop()
        report = numbered.report([relay01, relay02])
    print(f"both firewalls restarted and reloaded: {report}")
    assert min(report.sent.values()) > 5
    assert (report.lost_of["acked"], report.doubled, report.missed) == (0, 0, 0), report
    # Between nftables' own rules and ours this admin's drop what connects; upstream's publishers
    # do not wait for a second attempt. They have one message under way at a time.
    assert report.lost <= 2, report
    assert all(said.endswith(flow.HURRIED) for said in report.examples), report


def test_a_deploy_that_would_shut_out_a_host_of_the_bus_is_refused(
    relay01: Host, pkgs01: Host
) -> None:
    others = [network for network in ALLOWED if network != f"{address(pkgs01)}/32"]
    before = bus.generation(relay01)
    done = bus.playbook("deploy", *allow(others))
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"would refuse pkgs01 at {address(pkgs01)}" in said
    assert "fedmsg_base_relay_allow" in said
    done = bus.playbook("deploy", *allow(["10.0.0.1/8"]))
    assert "fedmsg_base_relay_allow has 10.0.0.1/8: 10.0.0.1/8 has host bits set" in " ".join(
        done.stdout.split()
    )
    assert bus.generation(relay01) == before


def test_one_more_network_is_one_restart_and_new_rules(
    relay01: Host, relay02: Host, pkgs01: Host, stranger01: Host
) -> None:
    starts = [bus.starts(relay) for relay in (relay01, relay02)]
    more = [*ALLOWED, f"{address(stranger01)}/32"]
    predicted = bus.changed_tasks(bus.deploy("--check", *allow(more)))
    changed = bus.changed_tasks(bus.deploy(*allow(more)))
    assert predicted == changed
    of_relay = {task.partition(" : ")[2].partition(" | ")[0] for task, at in changed
                if at == "relay01"}  # fmt: skip
    assert of_relay == {"keep", "configure", "firewall", "run", "start"}
    assert [bus.starts(relay) for relay in (relay01, relay02)] == [n + 1 for n in starts]
    for relay in RELAYS:
        assert met(stranger01, relay, *PORTS) == dict.fromkeys(PORTS, "open")
    assert bus.probe(stranger01).startswith("FEDMSG OK")
    bus.deploy()
    assert_closed_to_strangers_alone(pkgs01, stranger01)


def test_without_a_firewall_the_relay_refuses_and_the_deploy_says_so(
    relay01: Host, relay02: Host, pkgs01: Host, stranger01: Host
) -> None:
    try:
        for name, service in SERVICES.items():
            bus.host(name).check_output(f"systemctl disable --now {service}")
        output = bus.deploy("--limit", "relay02")
        assert "no firewall: neither firewalld nor ufw nor nftables.service runs here" in output
        relay01.check_output("! nft list ruleset | grep fedmsg")

        text = uuid.uuid4().hex
        logger = stranger01.run(f"fedmsg-logger --no-spool --message {text}")
        assert logger.rc == 75
        why = "it ends the connection: its relay_allow does not name this host"
        assert why in logger.stderr
        probe = stranger01.run("fedmsg-probe --timeout 3")
        assert (probe.rc, why in probe.stdout) == (2, True)
        stranger = address(stranger01)
        for relay in (relay01, relay02):
            assert f"not allowed: {stranger} to" in relay.file(bus.LOG).content_string
            name = relay.backend.host
            health = relay.check_output(f"curl --silent http://{name}:4002/health")
            assert f'"{stranger} is not in relay_allow: ' in health
            metrics = relay.check_output(f"curl --silent http://{name}:4002/metrics")
            assert 'fedmsg_relay_refused_connections_total{side="inbound"} 0' not in metrics
            assert f'fedmsg_relay_refused_peer_connections{{address="{stranger}"}}' in metrics
        assert stranger01.run("curl --silent --fail http://relay01:4002/health").rc != 0
        assert bus.probe(pkgs01).startswith("FEDMSG OK")
        for relay in (relay01, relay02):
            journal = relay.check_output(
                "python3 -c %s",
                "import sqlite3; db = sqlite3.connect('/var/lib/fedmsg-relay/journal.db');"
                f"print(db.execute(\"SELECT count(*) FROM message WHERE body LIKE '%{text}%'\")"
                ".fetchone()[0])",
            )
            assert journal == "0"
    finally:
        for name, service in SERVICES.items():
            bus.host(name).check_output(f"systemctl enable --now {service}")


def test_no_networks_is_nothing_of_ours(relay01: Host, relay02: Host) -> None:
    """And the firewalls are the admins' again: these let nobody in."""
    output = bus.deploy("--tags", "fedmsg_configure", "--limit", "relay01,relay02", *allow([]))
    assert "no networks are named: the firewall is left alone" in output
    assert "fedmsg" not in relay01.check_output("nft list ruleset")
    assert not relay01.file("/etc/systemd/system/nftables.service.d/fedmsg-relay.conf").exists
    assert "fedmsg" not in relay02.check_output("firewall-cmd --get-policies")
