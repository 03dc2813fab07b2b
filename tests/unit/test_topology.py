"""playbooks/topology.yml draws what the inventory says, and docs/include has what it draws now."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# No host is to be reached, so it does not matter that none of these can be.
TWO_RELAYS = """
all:
  vars: {ansible_host: 192.0.2.1, ansible_connection: ssh, ansible_become: true}
fedmsg_bus:
  hosts:
    gateway01:
      fedmsg_base_address: 10.1.2.3
      fedmsg_base_relay_http: ["10.1.2.3:4002"]
    gateway02: {fedmsg_base_relay_inbound_ports: [9941, 3998]}
    app01: {fedmsg_base_extra_endpoints: {passive.app01: ["tcp://app01:3000"]}}
fedmsg_relay:
  hosts: {gateway01: , gateway02: }
"""


def draw(
    inventory: Path, output: Path, *options: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the playbook as an operator does."""
    return subprocess.run(
        [
            shutil.which("ansible-playbook") or "ansible-playbook",
            f"--inventory={inventory}",
            f"--extra-vars=fedmsg_topology={output}",
            *options,
            "playbooks/topology.yml",
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **env},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("name", ["demo", "production"])
def test_the_pictures_of_the_documents_are_current(name: str) -> None:
    there = ROOT / f"docs/include/topology-{name}"
    done = draw(ROOT / f"inventory/{name}", there, "--check", "--diff")
    assert "changed=0" in done.stdout, f"run `make docs`, commit what it changes:\n{done.stdout}"
    assert done.returncode == 0
    # Graphviz's versions draw differently; what the picture was drawn from is in it.
    drawn_from = hashlib.sha256(there.with_suffix(".dot").read_bytes()).hexdigest()
    assert f'id="{drawn_from}"' in there.with_suffix(".svg").read_text(), "run `make docs`"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(TWO_RELAYS)
    return path


@pytest.fixture
def description(inventory: Path, tmp_path: Path) -> str:
    done = draw(inventory, tmp_path / "bus")
    assert done.returncode == 0, done.stdout
    picture = (tmp_path / "bus.svg").read_text()
    assert "gateway02" in picture
    assert "ssh" not in done.stdout
    again = draw(inventory, tmp_path / "bus")
    assert "changed=0" in again.stdout
    return (tmp_path / "bus.dot").read_text()


def test_two_relays(description: str) -> None:
    connections = dict.fromkeys(re.findall(r"(\S+) -> (\S+)( \[.*\])?$", description, re.M))
    assert list(connections) == [
        ("scripts:ours", "relay1:submit:n", ""),
        ("scripts:ours", "relay1:inbound:n", " [style=dashed]"),
        ("scripts:upstream:s", "relay1:inbound:n", ""),
        ("relay1:outbound:s", "listeners", " [dir=back]"),
        ("relay1:http:s", "listeners", " [dir=back, style=dotted]"),
        # Upstream's library connects to the first address alone, and the backlog of this one is
        # its host's own.
        ("scripts:ours", "relay2:submit:n", ""),
        ("scripts:ours", "relay2:inbound:n", " [style=dashed]"),
        ("relay2:outbound:s", "listeners", " [dir=back]"),
        ("service1:endpoint:s", "listeners", " [dir=back]"),
    ]
    for address in (
        "<b>submit</b><br/>10.1.2.3:2004<",
        "<b>inbound</b><br/>gateway02:9941<br/>gateway02:3998<",
        "<b>endpoint</b><br/>app01:3000<",
        "<b>health, metrics,<br/>backlog</b><br/>10.1.2.3:4002<",
    ):
        assert address in description
    assert "{ rank=same; relay1 -> relay2 [style=invis] }" in description


def test_without_graphviz_it_says_what_to_install(inventory: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("chmod", "echo", "mkdir", "rm", "sh", "sleep"):  # Ansible's own needs
        (programs / name).symlink_to(shutil.which(name) or name)
    done = draw(inventory, tmp_path / "bus", PATH=str(programs))
    assert done.returncode != 0
    assert "Install the package graphviz" in done.stdout
    assert not (tmp_path / "bus.dot").exists()
