"""The installed collection deploys, by the oldest ansible-core and the newest, by itself."""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path

import bus
import collection
import pytest
from listener import listening
from testinfra.host import Host

# On each host: a look at it, the config's check there by the programs in place, a message as proof.
NOTHING_TO_DO = {"busgateway01": 3, "app01": 3}
# Most are of the config and of units, file by file.
FIRST_AT_MOST = {"busgateway01": 55, "app01": 35}
NOTHING = {"busgateway01": 0, "app01": 0}
# Everything but packages.
WIPE = """
systemctl disable --now --quiet fedmsg-relay.socket fedmsg-relay.service \
  fedmsg-spool.path fedmsg-spool.timer 2>/dev/null
rm -rf /etc/fedmsg.d /etc/logrotate.d/fedmsg-relay /etc/systemd/system/fedmsg-* \
  /etc/sysusers.d/fedmsg-relay.conf /etc/tmpfiles.d/fedmsg-relay.conf \
  /usr/local/bin/fedmsg-* /usr/local/lib/fedmsg-relay \
  /usr/local/lib/python3*/dist-packages/fedmsg-relay.pth \
  /var/lib/fedmsg-relay /var/log/fedmsg /var/spool/fedmsg /run/fedmsg
systemctl daemon-reload
userdel fedmsg
"""


# Whole deploys, on a machine that may be busy with others.
pytestmark = pytest.mark.timeout(900)


def version(venv: Path) -> str:
    shown = subprocess.run(
        [str(venv / "bin/ansible"), "--version"], stdout=subprocess.PIPE, text=True, check=True
    )
    found = re.search(r"core (\d+\.\d+)", shown.stdout)
    assert found
    return found[1]


def passes(app01: Host) -> None:
    """A message of one host reaches a listener, through the relay."""
    marker = uuid.uuid4().hex
    with listening(app01) as listener:
        app01.check_output(f"fedmsg-logger --no-spool --message {marker}")
        bus.wait_for(lambda: listener.messages(marker), "the message")


def something_to_do(run: collection.Run, title: str, app01: Host) -> None:
    print(collection.report(title, run))
    assert run.rc == 0, run.output
    assert set(run.recap("changed")) == set(FIRST_AT_MOST)
    assert all(run.recap("changed").values()), run.output
    assert all(run.trips[host] <= most for host, most in FIRST_AT_MOST.items()), run.trips
    passes(app01)


def nothing_to_do(control: collection.Control, venv: Path, title: str) -> None:
    run = control.playbook(venv, "deploy")
    print(collection.report(title, run))
    assert run.rc == 0, run.output
    assert run.recap("changed") == NOTHING, run.output
    assert run.trips == NOTHING_TO_DO, run.output


def test_the_oldest_is_what_the_collection_asks_for(control: collection.Control) -> None:
    asked = (control.installed / "meta/runtime.yml").read_text()
    assert f'requires_ansible: ">={version(collection.VENVS["oldest"])}.0"' in asked


def test_first_deploy_by_the_oldest(first: collection.Run, app01: Host) -> None:
    something_to_do(first, "first deploy, oldest ansible-core", app01)


def test_second_deploy_by_the_oldest(control: collection.Control) -> None:
    nothing_to_do(control, collection.VENVS["oldest"], "no-op deploy, oldest ansible-core")


def test_nothing_of_the_checkout_is_used(control: collection.Control) -> None:
    """As told by Ansible: where its tasks come from; and the package on hosts is that of the
    collection, for one more module there is one that the hosts lack."""
    more = control.installed / "files/fedmsg_relay/one_more.py"
    more.touch()
    try:
        run = control.playbook(collection.VENVS["newest"], "deploy", "--check", "--diff", "-vvvv")
    finally:
        more.unlink()
    assert run.rc == 0, run.output
    assert "fedmsg_relay/one_more.py" in run.output
    assert "No config file found; using defaults" in run.output
    told = re.findall(r"^(?:task path:|File lookup using) (/[^\s:]+)", run.output, re.M)
    installed = str(control.installed.resolve())
    assert {path for path in told if not str(Path(path).resolve()).startswith(installed)} == set()
    assert f"{installed}/roles/fedmsg_base/tasks/main.yml" in told


def test_first_and_second_deploy_by_the_newest(
    control: collection.Control, relay: Host, app01: Host
) -> None:
    newest = collection.VENVS["newest"]
    for host in (relay, app01):
        host.check_output(WIPE)
    run = control.playbook(newest, "deploy")
    something_to_do(run, "first deploy, newest ansible-core, packages there", app01)
    nothing_to_do(control, newest, "no-op deploy, newest ansible-core")


def test_check_playbook(control: collection.Control, relay: Host) -> None:
    for venv in collection.VENVS.values():
        run = control.playbook(venv, "check")
        assert run.rc == 0, run.output
        assert "busgateway01: ok: unit active" in run.output
        assert "app01: ok: FEDMSG OK" in run.output
    bus.stop(relay)
    try:
        run = control.playbook(venv, "check", "--extra-vars", "fedmsg_base_probe_timeout_sec=1")
    finally:
        bus.start(relay)
    assert run.rc != 0
    assert "busgateway01: WRONG: fedmsg-relay.service is inactive" in run.output
