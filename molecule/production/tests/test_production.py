"""Fedora's ports on Debian 12, with messages that are signed and validated."""

from __future__ import annotations

import json
import re

import bus
import pytest
from listener import listening

HOSTS = ("busgateway01", "app01", "pkgs01")
PORTS = (9941, 3998, 3999)
SUBMIT = 9942
TOPIC = "org.fedoraproject.prod.logger"


def test_the_relay_runs_on_debian_12_with_its_packages() -> None:
    relay = bus.host("busgateway01")
    assert relay.system_info.codename == "bookworm"
    assert bus.unit_property(relay, "ActiveState") == "active"
    assert relay.package("python3-zmq").version.startswith("24.")
    # The relay does as well without.
    assert not relay.package("python3-orjson").is_installed
    assert "pyzmq 24." in relay.file(bus.LOG).content_string


def test_ports_are_those_of_the_inventory_on_the_address_others_use() -> None:
    relay = bus.host("busgateway01")
    address = relay.check_output("getent ahostsv4 busgateway01").split()[0]
    listening_on = relay.check_output("ss -H -ltnp").splitlines()
    ours = {line.split()[3] for line in listening_on if '"systemd"' in line}
    assert ours == {f"{address}:{port}" for port in (*PORTS, SUBMIT)}
    assert all('"fedmsg-relay"' in line for line in listening_on if '"systemd"' in line)


def test_the_sandbox_holds_on_debian_12() -> None:
    shown = bus.host("busgateway01").check_output(
        f"systemd-analyze security --no-pager {bus.UNIT} | tail -n 1"
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    assert exposure is not None
    assert float(exposure[1]) <= 1.5


@pytest.mark.parametrize("name", HOSTS)
def test_each_host_reaches_the_bus_by_both_inbound_ports(name: str) -> None:
    line = bus.probe(bus.host(name, root=False))
    assert line.startswith("FEDMSG OK - ")
    for port in PORTS:
        assert f"tcp://busgateway01:{port}" in line
    assert f"tcp://busgateway01:{SUBMIT} acknowledged" in line
    assert re.search(r"round_trip_1=[\d.]+ms\S* round_trip_2=[\d.]+ms\S* ack=[\d.]+ms", line)


def test_messages_are_acknowledged_on_the_port_of_the_inventory() -> None:
    done = bus.host("pkgs01", root=False).run("echo x | fedmsg-logger --verbose")
    assert done.rc == 0
    assert f"acked by tcp://busgateway01:{SUBMIT} as seq" in done.stderr


@pytest.mark.parametrize("name", HOSTS)
def test_every_program_sees_the_options_of_the_inventory(name: str) -> None:
    config = json.loads(bus.host(name, root=False).check_output("fedmsg-logger --print-config"))
    assert config["environment"] == "prod"
    assert (config["post_init_sleep"], config["zmq_linger"]) == (1.0, 2000)
    assert config["zmq_reconnect_ivl_max"] == 500
    assert config["sign_messages"] is config["validate_signatures"] is True


def test_scripts_sign_and_listeners_show_only_what_is_signed() -> None:
    pkgs01 = bus.host("pkgs01", root=False)
    with listening(bus.host("app01"), topic=TOPIC, publisher=pkgs01) as listener:
        for number in range(3):
            pkgs01.check_output(f"echo {number} | fedmsg-logger")
            # What has no signature goes through the relay, and no further than a listener's check.
            pkgs01.check_output(
                "cd /tmp; mkdir -p unsigned; cp /etc/fedmsg.d/*.py unsigned;"
                " echo 'config = {\"sign_messages\": False}' > unsigned/z.py;"
                " fedmsg-logger --config-filename unsigned --message forged"
            )
        last = "the end"
        pkgs01.check_output(f"fedmsg-logger --message '{last}'")
        bus.wait_for(lambda: listener.messages(last), "the last message")
        shown = listener.messages()
    assert [m["msg"]["log"] for m in shown] == ["0", "1", "2", last]
    assert all(m["crypto"] == "x509" and m["signature"] for m in shown)


def test_a_script_without_a_key_is_told_so_and_publishes_nothing() -> None:
    done = bus.host("app01", root=False).run("fedmsg-logger --message x")
    assert done.rc == 2
    assert "certnames has no 'shell.app01'" in done.stderr
