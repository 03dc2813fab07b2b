"""The deployed bus as the tests use it: hosts, playbooks, and waiting for what must come."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Callable, TypeVar

import testinfra
from testinfra.host import Host

from tests.support import waiting

ROOT = Path(__file__).parents[3]
INVENTORY = os.environ.get("MOLECULE_INVENTORY_FILE", "")
UNIT = "fedmsg-relay.service"
SOCKETS = "fedmsg-relay.socket"
SPOOL = "/var/spool/fedmsg"
LOG = "/var/log/fedmsg/fedmsg-relay.log"
CONFIG_FILES = ("base.py", "endpoints.py", "logging.py", "relay.py")

T = TypeVar("T")


def host(name: str, *, root: bool = True) -> Host:
    """A host, with every command run by root or by the operator who logs in."""
    url = f"ansible://{name}?sudo={root}&force_ansible=False"
    return testinfra.get_host(url, ansible_inventory=INVENTORY)


def playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook as an operator does. A failure is the caller's to look at."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    environment.pop("ANSIBLE_LOG_PATH", None)
    # Molecule may want colours, and changed_tasks() finds no word in them.
    environment.pop("ANSIBLE_FORCE_COLOR", None)
    command = ["ansible-playbook", "--inventory", INVENTORY, f"playbooks/{name}.yml", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)  # fmt: skip


def deploy(*arguments: str) -> str:
    """Deploy, which must succeed; what it printed."""
    done = playbook("deploy", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def changed_tasks(output: str) -> set[tuple[str, str]]:
    """(task, host) of every change in the output of a run."""
    task, found = "", set()
    for line in output.splitlines():
        named = re.search(r"(?:TASK|HANDLER) \[(.*)\] \**$", line)
        changed = re.search(r"\bchanged: \[(\w+)\]", line)
        if named:
            task = named[1]
        elif changed:
            found.add((task, changed[1]))
    return found


def wait_for(condition: Callable[[], T | None], what: str, seconds: float = 20) -> T:
    """The first true value of `condition`, asked again and again until `seconds` have passed."""
    return waiting.wait_for(condition, seconds, what, pause=0.1)


def stop(relay: Host) -> None:
    """Stop the relay, and its sockets, or else whoever connects next would start it."""
    relay.check_output(f"systemctl stop {SOCKETS}")
    assert unit_property(relay, "ActiveState") == "inactive"


def start(relay: Host) -> None:
    relay.check_output(f"systemctl start {UNIT}")


def spooled(host: Host) -> list[str]:
    """Names of the messages in the host's spool."""
    return host.check_output(f"find {SPOOL} -maxdepth 1 -name '[0-9]*' -printf '%f\\n'").split()


def unit_property(relay: Host, name: str) -> str:
    return relay.check_output(f"systemctl show --property={name} --value {UNIT}")


def generation(relay: Host) -> tuple[str, ...]:
    """Changes with every start of the relay, whoever starts it."""
    shown = relay.check_output(
        f"systemctl show --property=MainPID,ExecMainStartTimestampMonotonic,NRestarts {UNIT}"
    )
    return tuple(shown.splitlines())


def starts(relay: Host) -> int:
    """How often systemd has started the relay since the host booted."""
    return int(
        relay.check_output(f"journalctl --unit {UNIT} --output cat | grep -c '^Started ' || true")
    )


def config_of(host: Host) -> dict[str, str]:
    """Checksum of every file of the global config."""
    listed = host.check_output("find /etc/fedmsg.d -type f -exec sha256sum {} +")
    return {path: checksum for checksum, path in map(str.split, listed.splitlines())}


def probe(host: Host) -> str:
    """The line of fedmsg-probe, which must be good."""
    return host.check_output("fedmsg-probe")
