"""The hosts of the scenario `sop`, and the control host: this machine, in a copy of the repository.

Commands run as the operator runs them, in a shell; root is for the tests' own needs.
"""

from __future__ import annotations

import atexit
import filecmp
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import testinfra
from testinfra.host import Host

from .document import CONTROL, ROOT

SCENARIO = ROOT / "molecule" / "sop"
# The drill has hosts of its own.
STATE = ROOT / os.environ.get("SOP_STATE", "build/sop")
SSH_CONFIG = STATE / "hosts" / "ssh_config"
CONNECTIONS = STATE / "hosts" / "inventory.json"
CONTROL_COPY = STATE / "control"
INVENTORY = "inventory/production"

RELAY = "busgateway01"
LISTENER = "app01"
PUBLISHER = "pkgs01"
NAMES = (RELAY, "busgateway02", LISTENER, PUBLISHER)

# What the control host's environment has of Ansible's: where its files are, how it is spared work.
KEPT = ("ANSIBLE_HOME", "ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_CALLBACKS_ENABLED")

# Seconds, for one command. What takes longer hangs: a deploy to a new host installs packages.
LIMIT = 400
# What ssh and testinfra exit with when there is no connection.
UNREACHABLE = 255


@dataclass(frozen=True)
class Printed:
    """What a command printed, on either output, and its exit status."""

    status: int
    text: str


def run(name: str, command: str) -> Printed:
    """Run a command of the page, which ends within LIMIT seconds or is ended."""
    return _run(_machine(name), command, CONTROL_COPY if name == CONTROL else None)


def root(name: str, command: str) -> Printed:
    return _run(_machine(name, sudo=True), command, None)


def check_root(name: str, command: str) -> str:
    """What root's command printed; it must succeed."""
    done = root(name, command)
    assert done.status == 0, f"{name}: {command}: {done.text}"
    return done.text


def playbook(path: str, *options: str) -> Printed:
    """Run a playbook on the control host, by the inventory as it is there now."""
    words = ["ansible-playbook", "--inventory", INVENTORY, path, *options]
    done = subprocess.run(
        words,
        cwd=CONTROL_COPY,
        env=control_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * LIMIT,
    )
    return Printed(done.returncode, done.stdout)


def changes(printed: str) -> list[str]:
    """`task: host` of every change in the output of a playbook."""
    task, found = "", []
    for line in printed.splitlines():
        if named := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\] \**$", line):
            task = named[1]
        elif changed := re.match(r"changed: \[([^\]]+)\]", line):
            found.append(f"{task}: {changed[1]}")
    return found


def renew_control() -> None:
    """Make the control host's copy of the repository: the files as they are, committed, with the
    scenario's inventory in place of inventory/production."""
    shutil.rmtree(CONTROL_COPY, ignore_errors=True)
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for file in filter(None, files.splitlines()):
        source, copy = ROOT / file, CONTROL_COPY / file
        if source.is_symlink() or source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    inventory = CONTROL_COPY / INVENTORY
    shutil.rmtree(inventory)
    shutil.copytree(SCENARIO / "inventory", inventory)
    shutil.copy2(CONNECTIONS, inventory / "connections.json")
    git = ["git", "-c", "user.name=operator", "-c", "user.email=operator@control"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "Inventory"]):
        subprocess.run([*git, *words], cwd=CONTROL_COPY, env=control_environment(), check=True)
    programs = STATE / "bin"
    programs.mkdir(exist_ok=True)
    # How the control host reaches the others is in an operator's own ssh config, usually.
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{SSH_CONFIG}" "$@"\n')
    ssh.chmod(0o755)


def inventory_differs() -> bool:
    """Whether the control host's inventory is another one than renew_control makes."""
    compared = filecmp.dircmp(SCENARIO / "inventory", CONTROL_COPY / INVENTORY)
    return bool(
        compared.left_only
        or set(compared.right_only) != {"connections.json"}
        or filecmp.cmpfiles(compared.left, compared.right, compared.common, shallow=False)[1:]
        != ([], [])
    )


def control_environment() -> dict[str, str]:
    """What the operator's shell on the control host has: no colours, a name for git."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ANSIBLE_", "MOLECULE_", "GIT_", "PYTEST_")) or key in KEPT
    }
    author = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "operator"), ("EMAIL", "operator@control"))
    }
    path = f"{STATE / 'bin'}:{os.environ['PATH']}"
    return {**kept, **author, "PATH": path, "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}


def _run(machine: Host, command: str, directory: Path | None) -> Printed:
    # As on a terminal, both outputs in one; and a new shell for each command.
    script = f"exec 2>&1\n{command}"
    if directory:
        script = f"cd '{directory}'\n{_exports()}\n{script}"
    try:
        done = machine.run(f"timeout --signal=INT --kill-after=10 {LIMIT} bash -c %s", script)
    except RuntimeError as error:  # testinfra's, for a connection that fails
        return Printed(UNREACHABLE, str(error))
    return Printed(done.rc, done.stdout)


@cache
def _exports() -> str:
    mine = control_environment()
    exported = [
        f"export {key}='{value}'" for key, value in mine.items() if os.environ.get(key) != value
    ]
    return "\n".join([*exported, *(f"unset {key}" for key in os.environ.keys() - mine.keys())])


@cache
def _machine(name: str, *, sudo: bool = False) -> Host:
    if name == CONTROL:
        return testinfra.get_host("local://")
    # One connection for all commands; one that is dead is found out soon.
    return testinfra.get_host(
        f"ssh://{name}",
        sudo=sudo,
        ssh_config=str(SSH_CONFIG),
        # Testinfra formats it, once.
        controlpath=f"{_sockets()}/%%C",
        ssh_extra_args="-o ServerAliveInterval=5 -o ServerAliveCountMax=3",
    )


@cache
def _sockets() -> str:
    """A directory whose path is short, as those of sockets have to be."""
    directory = tempfile.mkdtemp(prefix="fedmsg-sop-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
