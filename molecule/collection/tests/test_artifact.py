"""What the collection has: what a control host needs to deploy, and documents; no more."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import collection
import pytest

# What a control host needs, and what people read who have nothing else.
DIRECTORIES = ("docs", "files", "inventory", "meta", "playbooks", "plugins", "roles", "templates")
FILES = ("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "relay.py")
LINKS = {
    "files/relay.py": "../relay.py",
    "playbooks/files": "../files",
    "playbooks/templates": "../templates",
    "roles/fedmsg_base/files": "../../files",
    "roles/fedmsg_base/templates": "../../templates",
    "roles/fedmsg_bridge/files": "../../files",
    "roles/fedmsg_bridge/templates": "../../templates",
    "roles/fedmsg_monitoring/files": "../../files",
    "roles/fedmsg_monitoring/templates": "../../templates",
    "roles/fedmsg_relay/files": "../../files",
    "roles/fedmsg_relay/templates": "../../templates",
}


def tracked() -> set[str]:
    """What git knows of these."""
    command = ["git", "ls-files", "-z", "--", *DIRECTORIES, *FILES]
    listed = subprocess.run(
        command, cwd=collection.ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return set(listed.stdout.split("\0")) - {""}


def test_it_has_what_git_has_of_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    built = collection.build(tmp_path)
    assert built.stat().st_size < 500_000
    with tarfile.open(built) as artifact:
        members = artifact.getmembers()
    found = {member.name for member in members if not member.isdir()}
    assert found == tracked() | {"MANIFEST.json", "FILES.json"}
    assert {member.name: member.linkname for member in members if member.issym()} == LINKS


def test_installed_it_is_what_was_built(control: collection.Control) -> None:
    """With its links, and with what may be executed."""
    [built] = collection.ARTIFACT.glob("*.tar.gz")
    with tarfile.open(built) as artifact:
        for member in artifact.getmembers():
            installed = control.installed / member.name
            if member.issym():
                assert os.readlink(installed) == member.linkname
            elif content := artifact.extractfile(member):
                assert installed.read_bytes() == content.read(), member.name
                assert os.access(installed, os.X_OK) == bool(member.mode & 0o100), member.name


@pytest.mark.parametrize("inventory", ["demo", "production"])
@pytest.mark.parametrize("age", collection.VENVS)
def test_syntax_of_every_playbook(age: str, inventory: str, control: collection.Control) -> None:
    names = sorted(path.stem for path in (control.installed / "playbooks").glob("*.yml"))
    assert {"check", "deploy"} <= set(names)
    output = control.syntax(collection.VENVS[age], inventory, names)
    assert output.count("playbook: ") == len(names), output
