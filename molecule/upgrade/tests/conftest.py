from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import bus
import pytest
import traces
from testinfra.host import Host

OLDER = Path(__file__).parents[1] / "files" / "older-release.tar.gz"


@pytest.fixture(scope="session")
def untouched(relay: Host, app01: Host) -> traces.Snapshots:
    """The hosts as they were before anything was deployed."""
    if relay.file("/etc/fedmsg.d").exists:  # of a run before, on the same hosts
        done = bus.playbook("remove", "--extra-vars", json.dumps({"discard_spool": True}))
        assert done.returncode == 0, done.stdout
    # A firewall, for a deploy to put rules into.
    relay.check_output("systemctl enable --now nftables.service")
    return traces.take([relay, app01])


@pytest.fixture(scope="session")
def older(untouched: traces.Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release before is deployed, by its own playbook; this is its collection."""
    tree = tmp_path_factory.mktemp("older")
    with tarfile.open(OLDER) as archive:
        archive.extractall(tree, filter="data")
    # By its own roles and plugins, and none of this one's.
    environment = {**os.environ, "ANSIBLE_CONFIG": str(bus.ROOT / "ansible.cfg"),
                   "ANSIBLE_ROLES_PATH": str(tree / "roles"),
                   "ANSIBLE_COLLECTIONS_PATH": str(tree / "collections")}  # fmt: skip
    command = ["ansible-playbook", "--inventory", bus.INVENTORY, "playbooks/deploy.yml"]
    done = subprocess.run(command, cwd=tree, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree
