"""Hosts that are away: a deploy goes on without a publisher, not without a relay, not by halves."""

from __future__ import annotations

import json
import re

import bus
import collection
import pytest
from testinfra.host import Host

pytestmark = pytest.mark.timeout(900)

AGES = pytest.mark.parametrize("age", collection.VENVS)
# Nobody answers there.
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 1}
CHANGE = ("--extra-vars", json.dumps({"fedmsg_base_zmq_linger": 1500}))


def also(control: collection.Control, **groups: dict[str, dict[str, object]]) -> tuple[str, str]:
    """Options of a playbook: further hosts, by group, in the inventory beside the others."""
    path = control.work / "also.json"
    path.write_text(json.dumps({name: {"hosts": hosts} for name, hosts in groups.items()}))
    return "--inventory", str(path)


def last_lines(run: collection.Run) -> str:
    """What is said last, before the recap."""
    return re.sub(r"\s+", " ", run.output.rpartition("PLAY RECAP")[0][-1500:])


@AGES
def test_a_publisher_that_is_down_is_left_out_and_named_last(
    age: str, control: collection.Control, relay: Host, app01: Host
) -> None:
    down = also(control, fedmsg_bus={"pkgs09": NOWHERE, "pkgs08": NOWHERE})
    venv = collection.VENVS[age]
    try:
        run = control.playbook(venv, "deploy", *down, *CHANGE)
        assert run.rc != 0
        for host in (relay, app01):
            assert '"zmq_linger": 1500' in host.file("/etc/fedmsg.d/base.py").content_string
        said = last_lines(run)
        assert re.search("Left out, for they cannot be reached: pkgs0[89], pkgs0[89]", said), said
        assert re.search("--limit pkgs0[89],pkgs0[89]", said), said
        failed = run.recap("failed")
        assert (failed["busgateway01"], failed["app01"]) == (0, 0), run.output
    finally:
        assert control.playbook(venv, "deploy").rc == 0


@AGES
def test_one_that_is_down_and_one_that_refuses_change_nothing_anywhere(
    age: str, control: collection.Control, relay: Host, app01: Host
) -> None:
    """ansible-core forgets any_errors_fatal where a host is unreachable as well."""
    further = also(control, fedmsg_bus={"pkgs09": NOWHERE, "pkgs08": NOWHERE})
    app01.check_output("mv /var/spool/fedmsg /var/spool/aside && touch /var/spool/fedmsg")
    before = [bus.config_of(host) for host in (relay, app01)]
    try:
        run = control.playbook(collection.VENVS[age], "deploy", *further, *CHANGE)
        after = [bus.config_of(host) for host in (relay, app01)]
    finally:
        app01.check_output("rm /var/spool/fedmsg && mv /var/spool/aside /var/spool/fedmsg")
    assert run.rc != 0
    assert after == before, run.output
    assert not any(run.recap("changed").values()), run.output
    assert "which is no directory on app01" in last_lines(run), run.output


@AGES
def test_a_relay_that_is_down_ends_a_deploy_before_it_begins(
    age: str, control: collection.Control, app01: Host
) -> None:
    further = also(
        control, fedmsg_bus={"busgateway02": NOWHERE}, fedmsg_relay={"busgateway02": NOWHERE}
    )
    before = bus.config_of(app01)
    run = control.playbook(collection.VENVS[age], "deploy", *further)
    assert run.rc != 0
    assert bus.config_of(app01) == before
    said = last_lines(run)
    assert "busgateway02, which runs a relay, cannot be reached" in said
    assert "--limit 'all:!busgateway02'" in said


def test_a_relay_that_is_lost_leaves_the_others_their_config_and_a_proof_that_is_missing(
    control: collection.Control, relay: Host, app01: Host
) -> None:
    venv = collection.VENVS["newest"]
    relay.check_output("systemctl stop fedmsg-relay.socket fedmsg-relay.service")
    try:
        quick = ("--extra-vars", json.dumps({"fedmsg_base_probe_timeout_sec": 1}))
        run = control.playbook(venv, "deploy", "--limit", "app01", *CHANGE, *quick)
        assert '"zmq_linger": 1500' in app01.file("/etc/fedmsg.d/base.py").content_string
        assert run.rc != 0
        said = last_lines(run)
        assert "app01 has its programs and its config. Missing is the proof" in said, run.output
        assert "through busgateway01" in said and "FEDMSG CRITICAL" in said
    finally:
        relay.check_output("systemctl start fedmsg-relay.socket fedmsg-relay.service")
        assert control.playbook(venv, "deploy").rc == 0


def test_a_rollback_and_a_removal_are_not_done_by_halves(control: collection.Control) -> None:
    further = also(control, fedmsg_bus={"pkgs09": NOWHERE})
    for name in ("rollback", "remove"):
        run = control.playbook(collection.VENVS["newest"], name, *further)
        assert run.rc != 0
        assert not any(run.recap("changed").values()), run.output
        assert "pkgs09 cannot be reached" in last_lines(run), run.output
