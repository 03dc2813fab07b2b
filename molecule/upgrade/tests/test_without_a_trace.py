"""playbooks/remove.yml leaves nothing behind, and no message that anybody could still get."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bus
import flow
import listener
import pytest
import traces
from testinfra.host import Host

pytestmark = pytest.mark.timeout(600)


def remove(*arguments: str, **variables: bool | str) -> tuple[int, str]:
    """Exit status, and what was said, in one line."""
    done = bus.playbook("remove", "--extra-vars", json.dumps(variables), *arguments)
    return done.returncode, re.sub(r"\s+", " ", done.stdout)


def test_relay_that_others_know_of_stays(older: Path, relay: Host, app01: Host) -> None:
    status, said = remove("--limit", "busgateway01")
    assert status != 0
    assert "busgateway01 cannot be removed: the inventory has it in the group fedmsg_relay, so" \
        " the config of app01 names it." in said, said  # fmt: skip
    bus.probe(app01)


def test_messages_that_wait_are_named_and_stay(older: Path, relay: Host, app01: Host) -> None:
    bus.stop(relay)
    try:
        app01.check_output("printf '1\\n2\\n' | fedmsg-logger 2>/dev/null")
        status, said = remove()
    finally:
        bus.start(relay)
    assert status != 0
    assert "app01 has 2 messages in /var/spool/fedmsg that no relay has taken; nothing was" \
        " removed on any host" in said, said  # fmt: skip
    bus.probe(app01)
    # It was not in the way of their delivery.
    bus.wait_for(lambda: not bus.spooled(app01), "the spool is empty", 60)


def test_nothing_is_left(
    untouched: traces.Snapshots, older: Path, relay: Host, app01: Host
) -> None:
    # With rules in the firewall, what a move leaves, and what is somebody else's.
    bus.deploy("--extra-vars", json.dumps({"fedmsg_base_relay_allow": ["0.0.0.0/0", "::/0"]}))
    assert "fedmsg_relay" in relay.check_output("nft list tables")
    relay.check_output("echo '{}' > /etc/fedmsg-move.json; mkdir /var/lib/fedmsg-relay/handed-over")
    foreign = "/etc/fedmsg.d/zz-of-somebody-else.py"
    app01.check_output(f"echo 'config = dict()' > {foreign}")
    with (
        listener.listening(app01, "org.fedoraproject.dev") as heard,
        flow.flowing(app01, [flow.Heard(heard.host, heard.path)]) as numbered,
    ):
        predicted = bus.playbook("remove", "--check", "--diff")
        # Stopped here, for what it publishes with is about to go.
        numbered.stop()
        report = numbered.report([relay])
        print(f"check of a removal under load: {report}")
        assert (report.lost, report.doubled) == (0, 0), report
        assert predicted.returncode == 0, predicted.stdout
        real = bus.playbook("remove", "--extra-vars", "keep_journal=true")
    assert real.returncode == 0, real.stdout
    assert bus.changed_tasks(predicted.stdout) == bus.changed_tasks(real.stdout)
    assert f"/etc/fedmsg.d stays: there is {foreign}" in real.stdout
    assert app01.file(foreign).exists
    assert "fedmsg_relay" not in relay.check_output("nft list ruleset")
    assert int(relay.check_output(f"stat --format %s {flow.JOURNAL}")) > 0
    app01.check_output(f"rm -r {foreign}")
    done = bus.playbook("remove")
    assert done.returncode == 0, done.stdout
    assert traces.differences(untouched, traces.take([relay, app01])) == []
    assert bus.changed_tasks(bus.playbook("remove").stdout) == set()
