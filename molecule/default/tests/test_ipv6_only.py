"""A relay whose name has IPv6 addresses alone: nobody would reach it by that, so it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bus
from testinfra.host import Host

NAME, ADDRESS = "relay6", "fd00:9::5"


def test_a_name_with_ipv6_alone_is_refused_before_any_change(
    relay: Host, app01: Host, tmp_path: Path
) -> None:
    said = {"fedmsg_bus": {"hosts": {"busgateway01": {"fedmsg_base_address": NAME}}}}
    (tmp_path / "hosts.json").write_text(json.dumps(said))
    before = [(bus.config_of(host), bus.generation(relay)) for host in (relay, app01)]
    hosts = "/etc/hosts"
    for host in (relay, app01):
        host.check_output(f"cp {hosts} /tmp/hosts && echo '{ADDRESS} {NAME}' >> {hosts}")
    try:
        done = bus.playbook("deploy", "--inventory", str(tmp_path / "hosts.json"))
    finally:
        for host in (relay, app01):
            host.check_output(f"cat /tmp/hosts > {hosts}")
    output = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode != 0, output
    assert f"cannot resolve {NAME}, the relay busgateway01" in output, output
    assert f"it has IPv6 addresses alone ({ADDRESS}), and to ZeroMQ a name means IPv4" in output
    assert bus.changed_tasks(done.stdout) == set()
    assert [(bus.config_of(host), bus.generation(relay)) for host in (relay, app01)] == before
