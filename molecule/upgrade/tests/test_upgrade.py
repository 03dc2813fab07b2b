"""From one release to the next and back, in this order, while numbered messages flow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import bus
import flow
import listener
import pytest
from testinfra.host import Host

pytestmark = pytest.mark.timeout(600)

JOURNAL = flow.JOURNAL
KEPT = "/usr/local/lib/fedmsg-relay.previous"
# The package is a link into these: to the one that is deployed.
RELEASES = "/usr/local/lib/fedmsg-relay/releases"
BEFORE = "published by the older release"
# fedmsg-logger of the older release imports as it goes, by the path that a switch gives to another
# release: the one that starts at that moment may end with this, and says that it has not sent. The
# older release is left twice, which is each time in the way of one at most.
MIXED = re.compile(r"\b(ImportError|ModuleNotFoundError|AttributeError|TypeError)\b")
SWITCHES = 2
# Restarts of the relay here: each may cost upstream's publishers what they send within a quarter of
# a second, docs/delivery.adoc. That is one message at most of those that flow here.
RESTARTS = 3

PACKAGE = "/usr/local/lib/fedmsg-relay/fedmsg_relay/"
SOURCE = bus.ROOT / "files/fedmsg_relay"
# What a release before has had and this one has not, and a script of somebody else's beside it.
GONE = (f"{PACKAGE}gone.py", "/usr/local/bin/fedmsg-gone")
MINE = "/usr/local/bin/fedmsg-mine"

# As fedmsg_relay.journal.store has it, and SQLite's own from the file.
SCHEMA = f"import sqlite3; print(*sqlite3.connect('{JOURNAL}').execute('PRAGMA user_version'))"


# What an admin adds to the relay's unit.
DROP_IN = "/etc/systemd/system/fedmsg-relay.service.d/admin.conf"


@pytest.fixture(scope="module")
def numbered(older: Path, relay: Host, app01: Host) -> Iterator[flow.Flow]:
    relay.check_output(
        f"mkdir -p {os.path.dirname(DROP_IN)} &&"
        f" printf '[Service]\\nEnvironment=ADMIN=here\\n' > {DROP_IN} && systemctl daemon-reload"
    )
    app01.check_output(f"fedmsg-logger --message '{BEFORE}'")
    with (
        listener.listening(app01, "org.fedoraproject.dev") as heard,
        flow.flowing(app01, [flow.Heard(heard.host, heard.path)]) as running,
    ):
        yield running
    # Nothing of ours removes what is the admin's.
    relay.check_output(f"rm -r {os.path.dirname(DROP_IN)} && systemctl daemon-reload")


def admin_is_obeyed(relay: Host) -> bool:
    environment = relay.check_output(
        "tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID fedmsg-relay)/environ"
    )
    return "ADMIN=here" in environment.splitlines() and relay.file(DROP_IN).exists


def schema(relay: Host) -> str:
    """That of the journal's file."""
    return relay.check_output(f'python3 -c "{SCHEMA}"').strip("(,)")


def programs(host: Host) -> dict[str, str]:
    """Checksum of every program, unit and file of the config, and of nothing else."""
    listed = host.check_output(
        "find -L /usr/local /etc/fedmsg.d /etc/systemd/system /etc/logrotate.d"
        f" \\( -path {KEPT} -o -path {RELEASES} \\) -prune"
        " -o -type f -not -name '*.pyc' -exec sha256sum {} +"
    )
    lines = (line.split(None, 1) for line in listed.splitlines())
    return {path: checksum for checksum, path in lines}


def reaches_back(relay: Host) -> bool:
    """Whether the backlog has what was published before the first upgrade."""
    url = "http://127.0.0.1:4002/raw?rows_per_page=100&order=asc"
    return BEFORE in relay.check_output(f"curl --silent --fail '{url}'")


def run(name: str, *arguments: str) -> set[tuple[str, str]]:
    """Ask a playbook what it would change, and run it: all that it changes, and no more."""
    predicted = bus.playbook(name, "--check", "--diff", *arguments)
    assert predicted.returncode == 0, predicted.stdout
    real = bus.playbook(name, *arguments)
    assert real.returncode == 0, real.stdout
    assert bus.changed_tasks(predicted.stdout) == bus.changed_tasks(real.stdout)
    return bus.changed_tasks(real.stdout)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, dict[str, str]]]:
    """By release, the programs of each host as they were deployed."""
    return {}


def test_older_release_writes_its_journal(numbered: flow.Flow, relay: Host) -> None:
    assert schema(relay) == "1"
    bus.wait_for(lambda: reaches_back(relay), "the first message in the backlog")


def test_the_older_release_has_files_that_this_one_has_not(
    numbered: flow.Flow, relay: Host, app01: Host
) -> None:
    for host in (relay, app01):
        host.check_output(f"echo 'x = 1' > {GONE[0]}")
        host.check_output(f"cp /usr/local/bin/fedmsg-tail {GONE[1]}")
        host.check_output(f"(cat {GONE[1]}; echo '# mine') > {MINE}")


def test_upgrade(numbered: flow.Flow, relay: Host, app01: Host, found: dict) -> None:
    found["older"] = {host.backend.host: programs(host) for host in (relay, app01)}
    starts = bus.starts(relay)
    changed = run("deploy")
    assert ("fedmsg_base : keep | Keep the release that this deploy replaces", "app01") in changed
    assert bus.starts(relay) == starts + 1
    assert schema(relay) == "2"
    assert reaches_back(relay)
    found["newer"] = {host.backend.host: programs(host) for host in (relay, app01)}
    assert found["newer"] != found["older"]
    assert admin_is_obeyed(relay)
    for host in found["older"]:
        gone = set(found["older"][host]) - set(found["newer"][host])
        assert {path for path in gone if not path.startswith(PACKAGE)} == {GONE[1]}
        # Exactly the modules of this release, wherever the older one had its own.
        ours = (path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
        there = {path for path in found["newer"][host] if path.startswith(PACKAGE)}
        assert there == {PACKAGE + name for name in ours}
        assert MINE in found["newer"][host]


def test_second_deploy_leaves_what_is_kept(numbered: flow.Flow, relay: Host) -> None:
    kept = f"sha256sum {KEPT}/*; ls -A {KEPT}"
    before = relay.check_output(kept)
    assert bus.changed_tasks(bus.deploy()) == set()
    assert relay.check_output(kept) == before


def test_rollback(numbered: flow.Flow, relay: Host, app01: Host, found: dict) -> None:
    starts = bus.starts(relay)
    run("rollback")
    assert bus.starts(relay) == starts + 1
    assert {host.backend.host: programs(host) for host in (relay, app01)} == found["older"]
    assert admin_is_obeyed(relay)
    # The older one would have moved a newer journal aside, and begun anew.
    assert schema(relay) == "1"
    assert reaches_back(relay)
    assert relay.check_output("ls /var/lib/fedmsg-relay").split() == sorted(
        ["journal.db", "journal.db-shm", "journal.db-wal"]
    )
    bus.probe(app01)


def test_rollback_of_a_rollback(numbered: flow.Flow, relay: Host, app01: Host, found: dict) -> None:
    done = bus.playbook("rollback")
    assert done.returncode == 0, done.stdout
    assert {host.backend.host: programs(host) for host in (relay, app01)} == found["newer"]
    for host in (relay, app01):
        host.check_output(f"rm {MINE}")
    assert schema(relay) == "2"
    assert reaches_back(relay)


def test_nothing_was_lost(numbered: flow.Flow, relay: Host) -> None:
    numbered.stop()
    report = numbered.report([relay])
    print(f"upgrade, rollback and upgrade under load: {report}")
    assert min(report.sent.values()) > 20, report
    refused = [
        said for (kind, _), said in numbered.sent().items()
        if kind == "acked" and not said.startswith("0 ")
    ]  # fmt: skip
    assert all(map(MIXED.search, refused)), refused
    assert len(refused) <= SWITCHES, refused
    # Nothing in silence.
    assert report.lost_of["acked"] == len(refused), report
    assert report.doubled == 0, report
    # Its sender knows of one that was sent before it was connected: all hosts share a machine.
    hurried = sum(said.endswith(flow.HURRIED) for said in numbered.sent().values())
    assert report.lost_of["legacy"] <= RESTARTS + min(1, hurried), report


def test_config_that_does_not_load_is_not_put_back(numbered: flow.Flow, app01: Host) -> None:
    """A file of somebody else that the older programs, or any, cannot read beside their own."""
    foreign = "/etc/fedmsg.d/zz-hand-made.py"
    before = programs(app01)
    app01.check_output(f"echo 'config = dict(' > {foreign}")
    try:
        done = bus.playbook("rollback")
    finally:
        app01.check_output(f"rm {foreign}")
    assert done.returncode != 0
    assert f"{foreign}:1" in done.stdout, done.stdout
    assert bus.changed_tasks(done.stdout) == set()
    assert programs(app01) == before


def test_what_the_last_deploy_did_not_change_stays(relay: Host, app01: Host) -> None:
    """One host alone gets another config: only that one goes back."""
    before = programs(app01)
    bus.deploy("--limit", "app01", "--extra-vars", json.dumps({"fedmsg_base_zmq_linger": 1500}))
    assert programs(app01) != before
    generation = bus.generation(relay)
    done = bus.playbook("rollback")
    assert done.returncode == 0, done.stdout
    assert {host for _, host in bus.changed_tasks(done.stdout)} == {"app01"}
    assert programs(app01) == before
    assert bus.generation(relay) == generation
