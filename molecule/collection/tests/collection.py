"""The collection as its users have it: built, installed into an empty path, run from elsewhere.

Nothing of the checkout is within reach of a run: not its ansible.cfg, its roles or its inventories.
Run as a program, this does for the converge what a user does first.

Round trips are counted by a program that takes ssh's place, notes each call and becomes ssh.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STATE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
# How the hosts are reached, as molecule/shared/hosts.py wrote it.
ACCESS = STATE / "hosts" / "inventory.json"
# What the converge built, and what came of its deploy.
ARTIFACT = STATE / "artifact"
FIRST = STATE / "first.json"
# Of the oldest ansible-core that is supported, and of the newest, which is the tests' own.
VENVS = {
    "oldest": Path(os.environ["FEDMSG_OLDEST_VENV"]),
    "newest": Path(sys.executable).parents[1],
}
NAME = "messaging_sig.fedmsg"
# What the operator's own inventory says. Neither group nor host has variables of the roles.
INVENTORY = """\
all:
  vars:
    ansible_python_interpreter: /usr/bin/python3
fedmsg_bus:
  hosts:
    busgateway01:
    app01:
fedmsg_relay:
  hosts:
    busgateway01:
"""
# Tells Ansible's connections from its one question whether ssh can share them.
COUNTING_SSH = """\
#!/bin/sh
case " $* " in *" -o Port="*) echo "$*" >> "$FEDMSG_TRIPS" ;; esac
exec ssh "$@"
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of ansible-playbook that has ended; `trips` are round trips by host."""

    rc: int
    output: str
    seconds: float
    trips: dict[str, int]

    def recap(self, what: str) -> dict[str, int]:
        """For each host its number of, for example, `changed`."""
        lines = self.output.rpartition("PLAY RECAP")[2]
        return {h: int(n) for h, n in re.findall(rf"^(\w+) .*\b{what}=(\d+)", lines, re.M)}


class Control:
    """A directory that stands for a control host: a home, a place to work in, collections."""

    def __init__(self, directory: Path) -> None:
        self.work = directory / "work"
        self.home = directory / "home"
        self.collections = directory / "collections"
        self._ssh = directory / "ssh"
        self._trips = directory / "trips"

    @property
    def installed(self) -> Path:
        return self.collections / "ansible_collections" / NAME.replace(".", "/")

    def install(self, artifact: Path, venv: Path) -> None:
        """Begin with empty directories."""
        for directory in (self.work, self.home, self.collections):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        (self.work / "hosts.yml").write_text(INVENTORY)
        self._ssh.write_text(COUNTING_SSH)
        self._ssh.chmod(0o755)
        command = ["collection", "install", "--offline", "--no-deps", str(artifact)]
        self._run([str(venv / "bin/ansible-galaxy"), *command, "-p", str(self.collections)])

    def playbook(self, venv: Path, name: str, *arguments: str) -> Run:
        """Run a playbook of the collection as an operator does. A failure is the caller's."""
        self._trips.write_text("")
        inventories = ["--inventory", "hosts.yml", "--inventory", str(ACCESS)]
        command = [str(venv / "bin/ansible-playbook"), *inventories, f"{NAME}.{name}", *arguments]
        started = time.monotonic()
        done = self._run(command, check=False)
        return Run(done.returncode, done.stdout, time.monotonic() - started, self._counted())

    def syntax(self, venv: Path, inventory: str, names: list[str]) -> str:
        """What `--syntax-check` prints of playbooks of the collection, which must pass."""
        inventories = ["--inventory", str(self.installed / "inventory" / inventory)]
        command = [str(venv / "bin/ansible-playbook"), *inventories, "--syntax-check"]
        return self._run([*command, *(f"{NAME}.{name}" for name in names)]).stdout

    def _counted(self) -> dict[str, int]:
        hosts = json.loads(ACCESS.read_text())["all"]["hosts"]
        calls = Counter(re.findall(r" -o Port=(\d+) ", self._trips.read_text()))
        return {name: calls[str(host["ansible_port"])] for name, host in hosts.items()}

    def _run(self, command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "HOME": str(self.home),
                "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
                "ANSIBLE_ROLES_PATH": str(self.home / "roles"),
                # As README.md advises.
                "ANSIBLE_PIPELINING": "true",
                # A socket's path must be short.
                "ANSIBLE_SSH_CONTROL_PATH_DIR": os.path.expanduser("~/.ansible/cp"),
                "ANSIBLE_SSH_EXECUTABLE": str(self._ssh),
                "FEDMSG_TRIPS": str(self._trips),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout
        return done


def report(title: str, run: Run) -> str:
    """One line on how long a deploy took."""
    trips = ", ".join(f"{host} {count}" for host, count in sorted(run.trips.items()))
    return f"{title}: {run.seconds:.1f} s, round trips: {trips}"


def build(directory: Path) -> Path:
    """Build the collection from the files that git knows; the artifact."""
    command = [str(ROOT / "tools/collection"), str(directory)]
    path = f"{VENVS['newest'] / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.strip())


def main() -> int:
    control = Control(STATE / "control")
    control.install(build(ARTIFACT), VENVS["oldest"])
    run = control.playbook(VENVS["oldest"], "deploy")
    FIRST.write_text(json.dumps(dataclasses.asdict(run)))
    print(run.output)
    return run.rc


if __name__ == "__main__":
    sys.exit(main())
