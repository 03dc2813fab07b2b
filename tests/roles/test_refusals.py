"""A deploy with a wrong input is refused before anything changes, and says what to do.

The cases of refusals.yml need no host: theirs are at a port where nobody answers, and the play ends
before it asks them. Others ask this machine. One run checks all, each in a play of its own with the
tasks of a deploy's first play, which changes nothing; one more is a whole deploy, as there are more
in molecule/default.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, free_port

pytestmark = pytest.mark.timeout(600)

CASES = {
    case["name"]: case
    for case in yaml.safe_load((Path(__file__).parent / "refusals.yml").read_text())
}
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False}
HERE = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": shutil.which("python3"),
}
# What can be refused only when a host has been asked: this machine, by each of their names.
CASES_HERE: dict[str, dict[str, Any]] = {
    "address that cannot be resolved": {
        "bus": {"fedmsg_base_address": "relay.invalid"},
        "says": ["cannot resolve relay.invalid", "Add it to DNS or", "set fedmsg_base_address"],
    },
    "address of another machine": {
        "bus": {"fedmsg_base_address": "192.0.2.7"},
        "says": ["192.0.2.7", "no address of this host", "Set fedmsg_base_address of relay"],
    },
    "loopback address of a relay with other hosts": {
        "bus": {"fedmsg_base_address": "127.0.0.1"},
        "app01": {},
        "says": ["which no other host can reach", "or set fedmsg_base_address of relay"],
    },
    "policy with what is no network": {
        "bus": {"fedmsg_base_relay_policy": {"a.*": ["10.5.0.0/16"], "b": ["10.5.1.0/16"]}},
        "says": [
            "fedmsg_base_relay_policy has 10.5.1.0/16: 10.5.1.0/16 has host bits set",
            "a list of networks like 10.5.0.0/16",
        ],
    },
    "log in no directory": {
        "bus": {"fedmsg_base_relay_log": "/nowhere/relay.log"},
        "says": ["fedmsg_base_relay_log is /nowhere/relay.log", "in a directory that is there"],
    },
    "journal that is a directory": {
        "bus": {"fedmsg_base_relay_journal": "/usr/local"},
        "says": ["fedmsg_base_relay_journal is /usr/local", "it must be a file"],
    },
    "spool that is a file": {
        "bus": {"fedmsg_base_publisher_spool": "/etc/passwd"},
        "says": ["fedmsg_base_publisher_spool is /etc/passwd", "choose another path"],
    },
    "user for monitoring who is not there": {
        "bus": {"fedmsg_base_monitoring_users": ["root", "no-such-user"]},
        "says": [
            "fedmsg_base_monitoring_users names no-such-user",
            "nagios-nrpe-server",
        ],
    },
    "signatures without certificates": {
        "bus": {"fedmsg_base_validate_signatures": True, "fedmsg_base_ssldir": "/nowhere"},
        "says": [
            "fedmsg_base_validate_signatures is true",
            "/nowhere/ca.crt",
            "fedmsg_base_ssldir",
        ],
    },
}
DEPLOY = ROOT / "playbooks/deploy.yml"
ROLE_TASKS = ("ansible.builtin.import_role", "ansible.builtin.include_role")
# A bridge to RabbitMQ that is right, to which a case adds what is wrong.
BRIDGE = {
    "fedmsg_bridge_url": ["amqps://fedmsg@rabbit01:5671/%2Fbus"],
    "fedmsg_bridge_password": "open-sesame",
}
# What a case adds to the names of its groups and hosts, so that the cases do not see each other.
OF_CASE = re.compile(r"_case(\d+)")
FURTHER_HOST = re.compile(r"(relay|app)\d\d")
RIGHT = "right input"


@dataclass(frozen=True)
class Run:
    """A run of a playbook. `lines`: see molecule/shared/callback_plugins/recorded.py."""

    returncode: int
    lines: list[dict[str, Any]]
    output: str

    @property
    def failures(self) -> str:
        """What its failures say, on one line."""
        return re.sub(r"\s+", " ", " ".join(str(e["msg"]) for e in self.lines if e["failed"]))


def run(directory: Path, inventory: Mapping[str, Any], playbook: Path, *options: str) -> Run:
    directory.mkdir(exist_ok=True)
    hosts, record = directory / "hosts.yml", directory / "recorded"
    hosts.write_text(yaml.safe_dump(dict(inventory)))
    record.touch()
    done = subprocess.run(
        [
            shutil.which("ansible-playbook") or "ansible-playbook",
            f"--inventory={hosts}",
            # This machine's is for others that run these tests on it. Of all hosts, which are this
            # machine, each has its own: the cases follow each other in one run.
            "--extra-vars="
            + json.dumps({"__fedmsg_base_lock": f"{directory}/lock-{{{{ inventory_hostname }}}}"}),
            *options,
            str(playbook),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "molecule/shared/callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "recorded,frozen",
            "RECORDED": str(record),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=580,
    )
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return Run(done.returncode, lines, done.stdout)


def groups_of(
    groups: Mapping[str, list[str]], variables: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        group: {
            "hosts": {host: dict(variables.get(host, {})) for host in hosts},
            "vars": dict(variables.get(group, {})),
        }
        for group, hosts in groups.items()
    }


def right_input() -> dict[str, Any]:
    """Unusual, and right."""
    bus = {
        "fedmsg_base_relay_inbound_ports": [9941, 3998],
        "fedmsg_base_relay_http": "127.0.0.1:4002",
        "fedmsg_base_certnames": {"shell.app01": "shell-app01.example.org"},
        "fedmsg_base_extra_config": {"datagrepper_url": "https://example.org/raw"},
        "fedmsg_base_relay_policy": {"*": [], "a": ["::1"], "org.a.*": ["10.5.0.0/16", "10.6.0.7"]},
        "fedmsg_base_relay_policy_mode": False,  # `off`, as YAML reads it
        # Of playbooks, and of whoever has names of their own.
        **dict.fromkeys(fedmsg_variables_of_playbooks(), "x"),
        "fedmsg_apps_mirror": "x",
    }
    bridge = {
        # Lists of one without brackets.
        "fedmsg_bridge_url": "amqps://[2001:db8::1]",
        "fedmsg_bridge_password": "",
        "fedmsg_bridge_certificate": "/etc/pki/bridge.pem",
        "fedmsg_bridge_key": "/etc/pki/bridge.key",
        "fedmsg_bridge_out": [],
        "fedmsg_bridge_in": "*.prod.#",
        "fedmsg_bridge_http": "127.0.0.1:4003",
    }
    return {"name": RIGHT, "bus": bus, "bridge": bridge}


def fedmsg_variables_of_playbooks() -> set[str]:
    """Variables that a playbook gives a value, so that an operator may say them."""
    return {
        name
        for path in (ROOT / "playbooks").glob("*.yml")
        for play in yaml.safe_load(path.read_text())
        for name in play.get("vars", {})
        if name.startswith("fedmsg_")
        and not name.startswith(("fedmsg_base_", "fedmsg_relay_", "fedmsg_bridge_"))
    }


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """By the case's name, that part of the one run that is its own."""
    directory = tmp_path_factory.mktemp("refusals")
    here = [{**case, "name": name, "here": True} for name, case in CASES_HERE.items()]
    # The last ends the run: nothing rescues a play from a host that cannot be reached.
    cases = [*CASES.values(), *here, right_input()]
    inventory: dict[str, Any] = {}
    plays = []
    for number, case in enumerate(cases):
        of_case = f"_case{number:02}"
        inventory.update(inventory_of(case, of_case))
        plays.append(play_of(case, of_case, list(inventory)))
    playbook = directory / "site.yml"
    playbook.write_text(yaml.safe_dump(plays))
    done = run(directory, inventory, playbook)
    found: dict[str, list[dict[str, Any]]] = {case["name"]: [] for case in cases}
    for line in done.lines:
        of_this = OF_CASE.search(line["host"])
        assert of_this, line
        line["msg"] = OF_CASE.sub("", str(line["msg"]))
        found[cases[int(of_this[1])]["name"]].append(line)
    return {name: Run(done.returncode, lines, done.output) for name, lines in found.items()}


def inventory_of(case: Mapping[str, Any], of_case: str) -> dict[str, Any]:
    named = sorted({*filter(FURTHER_HOST.fullmatch, (*case, case.get("limit", "")))})
    relays = ["relay", *(host for host in named if host.startswith("relay"))]
    groups = case.get("groups", {"fedmsg_bus": ["relay", *named], "fedmsg_relay": relays})
    if "bridge" in case:
        groups = {**groups, "fedmsg_bridge": case.get("bridges", relays)}
    bus = {
        **(HERE if "here" in case else NOWHERE),
        "fedmsg_base_bus_group": f"fedmsg_bus{of_case}",
        "fedmsg_base_relay_group": f"fedmsg_relay{of_case}",
        **case.get("bus", {}),
    }
    variables = dict.fromkeys(("fedmsg_bus", "fedmsg_relay"), bus)
    if "bridge" in case:
        variables["fedmsg_bridge"] = {**BRIDGE, **case["bridge"]}
    # Their names without the case's number.
    for host in ("relay", "app01", *named):
        name = "localhost" if "here" in case else host
        address = {} if "fedmsg_base_address" in bus else {"fedmsg_base_address": name}
        variables[host] = {**address, **case.get(host, {})}
    return {
        f"{group}{of_case}": {
            **of_group,
            "hosts": {f"{host}{of_case}": said for host, said in of_group["hosts"].items()},
        }
        for group, of_group in groups_of(groups, variables).items()
    }


def play_of(case: Mapping[str, Any], of_case: str, groups: list[str]) -> dict[str, Any]:
    """A deploy's first look at hosts, for those of one case, in which no failure ends the run."""
    checks = next(play["tasks"] for play in yaml.safe_load(DEPLOY.read_text()) if "tasks" in play)
    for task in checks:
        if "when" in task:
            role = next(task[how]["name"] for how in ROLE_TASKS if how in task)
            task["when"] = f"inventory_hostname in groups['{role}{of_case}'] | default([])"
    hosts = [name for name in groups if name.endswith(of_case)]
    return {
        "name": case["name"],
        "hosts": f"{case['limit']}{of_case}" if "limit" in case else ":".join(hosts),
        "gather_facts": False,
        "vars": case.get("play", {}),
        "tasks": [{"block": checks, "rescue": [{"ansible.builtin.meta": "noop"}]}],
    }


def assert_refused(found: Run, says: list[str]) -> None:
    assert found.lines, found.output
    missing = [words for words in says if words not in found.failures]
    assert not missing, f"not said: {missing}\nbut: {found.failures}"
    assert not [line for line in found.lines if line["changed"]]
    before = {
        task["name"]
        for play in yaml.safe_load((ROOT / "playbooks/find.yml").read_text())
        for task in play.get("tasks", [])
    }
    # What is included is said by a line of its own.
    before.add("Check the bridges' own variables")
    # `bus` and `once` are parts of it that other playbooks have, too.
    checks = re.compile(r" : (preflight|claim|claimed|unanswered|bus|once) [|] ")
    assert {line["task"] for line in found.lines if not checks.search(line["task"])} <= {
        line["task"] for line in found.lines if "Validating arguments" in line["task"]
    } | before


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_refused(name: str, table: dict[str, Run]) -> None:
    assert_refused(table[name], CASES[name]["says"])
    # By what the inventory says: no host has been asked for anything.
    assert "Connection refused" not in table[name].failures


def test_no_refusal_shows_a_password(table: dict[str, Run]) -> None:
    said = [name for name, found in table.items() if "sesame" in json.dumps(found.lines)]
    assert said == []
    assert "sesame" not in table[RIGHT].output


def test_right_input_is_not_refused(table: dict[str, Run]) -> None:
    """Or else anything that fails could be in the table. It ends where it asks the first host."""
    assert len(CASES) >= 25
    failed = [line for line in table[RIGHT].lines if line["failed"]]
    assert {line["task"].partition(" : ")[2] for line in failed} == {
        "preflight | Survey the host",
        "unanswered | Ensure the run can do without this host",
    }
    assert "Connection refused" in table[RIGHT].failures
    assert "fedmsg_topology" in fedmsg_variables_of_playbooks()


@pytest.mark.parametrize("name", CASES_HERE)
def test_what_one_host_refuses(name: str, table: dict[str, Run]) -> None:
    assert_refused(table[name], CASES_HERE[name]["says"])


def test_port_that_another_process_holds_ends_a_deploy(tmp_path: Path) -> None:
    """A whole deploy, in check mode: it ends with its first play."""
    with socket.create_server(("0.0.0.0", port := free_port())):
        variables = {"fedmsg_base_address": "localhost", "fedmsg_base_relay_submit_port": port}
        groups = {"fedmsg_bus": ["relay"], "fedmsg_relay": ["relay"]}
        inventory = groups_of(groups, {"fedmsg_bus": {**HERE, **variables}})
        found = run(tmp_path, inventory, DEPLOY, "--check")
    assert found.returncode != 0, found.output
    assert "Deploy the relays" not in found.output
    assert_refused(found, [f"port {port} is held by", "fedmsg_base_relay_submit_port"])
