"""A deploy with a wrong input is refused before anything changes, and says what to do.

The cases of refusals.yml need no host: theirs are at a port where nobody answers, so that one which
is not refused ends there. The others ask this machine, in check mode.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, free_port

CASES = {case["name"]: case for case in yaml.safe_load(
    (Path(__file__).parent / "refusals.yml").read_text()
)}  # fmt: skip
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False}
HERE = {"ansible_connection": "local", "ansible_become": False}
GROUPS = {"fedmsg_bus": ["relay", "app01"], "fedmsg_relay": ["relay"]}


@dataclass(frozen=True)
class Refusal:
    """How a run has ended. `messages` are the words of its failures, on one line."""

    returncode: int
    messages: str
    output: str


def run(
    directory: Path,
    variables: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, list[str]],
    *options: str,
    playbook: Path = ROOT / "playbooks/deploy.yml",
) -> Refusal:
    """Run a playbook as an operator does, with these variables of the groups and the hosts."""
    inventory = {
        "all": {"vars": {"ansible_python_interpreter": shutil.which("python3")}},
        **{
            group: {
                "hosts": {host: dict(variables.get(host, {})) for host in hosts},
                "vars": dict(variables.get(group, {})),
            }
            for group, hosts in groups.items()
        },
    }
    directory.mkdir()
    path = directory / "hosts.yml"
    path.write_text(yaml.safe_dump(inventory))
    done = subprocess.run(
        [
            shutil.which("ansible-playbook") or "ansible-playbook",
            f"--inventory={path}",
            *options,
            str(playbook),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    said = re.findall(r"^(?:fatal|failed): \[.*?\].*? => (\{.*?^\})", done.stdout, re.M | re.S)
    messages = [json.loads(text) for text in said]
    words = [
        str(each.get("msg", "")) + " " + str(each.get("argument_errors", "")) for each in messages
    ]
    return Refusal(done.returncode, re.sub(r"\s+", " ", " ".join(words)), done.stdout)


def assert_refused(refusal: Refusal, says: list[str]) -> None:
    assert refusal.returncode != 0, refusal.output
    missing = [words for words in says if words not in refusal.messages]
    assert not missing, f"not said: {missing}\n{refusal.output}"
    # Nothing has been changed, nobody asked, and the play that changes things not been reached.
    assert re.findall(r"(?:changed|unreachable)=[1-9]", refusal.output) == []
    assert "Deploy the relays" not in refusal.output


@pytest.fixture(scope="session")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Refusal]]:
    """All cases of the table, as many at a time as there are processors."""
    root = tmp_path_factory.mktemp("refusals")
    pool = ThreadPoolExecutor(os.cpu_count())
    return {
        name: pool.submit(refused_from_the_inventory, root / str(number), case)
        for number, (name, case) in enumerate(CASES.items())
    }


def refused_from_the_inventory(directory: Path, case: Mapping[str, Any]) -> Refusal:
    groups = case.get("groups", GROUPS)
    if "relay02" in case:
        groups = {group: [*hosts, "relay02"] for group, hosts in GROUPS.items()}
    variables = {
        "fedmsg_bus": {**NOWHERE, **case.get("bus", {})},
        "fedmsg_relay": NOWHERE,
        **{host: case[host] for host in ("relay", "relay02", "app01") if host in case},
    }
    limit = [f"--limit={case['limit']}"] if "limit" in case else []
    return run(directory, variables, groups, *limit)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_refused(name: str, refusals: dict[str, Future[Refusal]]) -> None:
    assert_refused(refusals[name].result(), CASES[name]["says"])


def test_the_table_is_long_enough_and_right_input_is_not_refused(tmp_path: Path) -> None:
    """Or else anything that fails could be in the table. It ends there, for the hosts are nowhere."""
    assert len(CASES) >= 25
    right = {
        "fedmsg_base_relay_inbound_ports": [9941, 3998],
        "fedmsg_base_relay_http": "127.0.0.1:4002",
        "fedmsg_base_certnames": {"shell.app01": "shell-app01.example.org"},
        "fedmsg_base_extra_config": {"datagrepper_url": "https://example.org/raw"},
        # Of playbooks, and of whoever has names of their own.
        **dict.fromkeys(fedmsg_variables_of_playbooks(), "x"),
        "fedmsg_apps_mirror": "x",
    }
    found = run(tmp_path / "right", {"fedmsg_bus": {**NOWHERE, **right}}, GROUPS)
    assert found.messages == ""
    assert found.output.count("unreachable=1") == 2, found.output
    assert "fedmsg_topology" in right


def fedmsg_variables_of_playbooks() -> set[str]:
    """Variables that a playbook gives a default, so that an operator may say them."""
    return {
        name
        for path in (ROOT / "playbooks").glob("*.yml")
        for play in yaml.safe_load(path.read_text())
        for name in play.get("vars", {})
        if name.startswith("fedmsg_") and not name.startswith(("fedmsg_base_", "fedmsg_relay_"))
    }


@pytest.mark.parametrize("name", ["fedmsg_base_address", "fedmsg_base_relay_submit_port"])
def test_variable_that_only_one_host_sees_is_refused(name: str, tmp_path: Path) -> None:
    """Set in a play, where the inventory's other hosts do not see it."""
    playbook = tmp_path / "site.yml"
    play = {"hosts": "fedmsg_bus", "gather_facts": False, "vars": {name: "9942"},
            "roles": [{"role": "fedmsg_base"}]}  # fmt: skip
    playbook.write_text(yaml.safe_dump([play]))
    found = run(tmp_path / "x", {"fedmsg_bus": NOWHERE}, GROUPS, playbook=playbook)
    assert_refused(found, [name, "in the inventory, or with -e"])


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"fedmsg_base_address": "relay.invalid"},
            ["cannot resolve relay.invalid", "Add it to DNS or", "set fedmsg_base_address"],
        ),
        (
            {"fedmsg_base_address": "192.0.2.7"},
            ["192.0.2.7", "no address of this host", "Set fedmsg_base_address of relay"],
        ),
        (
            {"fedmsg_base_address": "127.0.0.1"},
            ["which no other host can reach", "or set fedmsg_base_address of relay"],
        ),
        (
            {"fedmsg_base_relay_log": "/nowhere/relay.log"},
            ["fedmsg_base_relay_log is /nowhere/relay.log", "in a directory that is there"],
        ),
        (
            {"fedmsg_base_relay_journal": "/usr/local"},
            ["fedmsg_base_relay_journal is /usr/local", "it must be a file"],
        ),
        (
            {"fedmsg_base_publisher_spool": "/etc/passwd"},
            ["fedmsg_base_publisher_spool is /etc/passwd", "choose another path"],
        ),
        (
            {"fedmsg_base_validate_signatures": True, "fedmsg_base_ssldir": "/nowhere"},
            ["fedmsg_base_validate_signatures is true", "/nowhere/ca.crt", "fedmsg_base_ssldir"],
        ),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_the_host_refuses(variables: dict[str, Any], says: list[str], tmp_path: Path) -> None:
    found = run(tmp_path / "x", {"fedmsg_bus": {**HERE, **variables}}, GROUPS, "--check")
    assert_refused(found, says)


def test_port_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", port := free_port())):
        variables = {
            **HERE,
            "fedmsg_base_address": "localhost",
            "fedmsg_base_relay_submit_port": port,
        }
        found = run(
            tmp_path / "x",
            {"fedmsg_bus": variables},
            {"fedmsg_bus": ["relay"], "fedmsg_relay": ["relay"]},
            "--check",
        )
    assert_refused(found, [f"port {port} is held by", "or change fedmsg_base_relay_inbound_ports"])
