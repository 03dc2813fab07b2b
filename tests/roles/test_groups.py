"""Playbooks obey the names that the inventory gives its groups, and never do nothing in silence.

The hosts are at a port where nobody answers: a playbook that finds them says that it cannot reach
them, and one that finds none must not end as one that found nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.roles.test_refusals import NOWHERE, run

pytestmark = pytest.mark.timeout(300)

PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
FIND = "find.yml"
NAMED = {"fedmsg_base_bus_group": "msg_bus", "fedmsg_base_relay_group": "msg_relays"}


def inventory(**groups: tuple[list[str], Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "all": {"vars": NOWHERE},
        **{
            name: {"hosts": {host: {} for host in hosts}, "vars": dict(said)}
            for name, (hosts, said) in groups.items()
        },
    }


OTHER_NAMES = inventory(
    msg_bus=(["gw01", "app01"], NAMED), msg_relays=(["gw01"], {}), web=(["web01"], {})
)


@pytest.mark.parametrize(
    "path", [p for p in PLAYBOOKS if p.name != FIND], ids=lambda p: str(p.stem)
)
def test_every_playbook_asks_for_the_hosts_first(path: Path) -> None:
    first, *plays = yaml.safe_load(path.read_text())
    assert first["ansible.builtin.import_playbook"] == FIND
    needed = first["vars"].get("__fedmsg_needed_groups", [])
    for play in plays:
        words = re.findall(r"\w+", play["hosts"])
        assert "fedmsg_bus" not in words and "fedmsg_relay" not in words
        # groups that only the playbook of the examples knows
        assert play["hosts"] in needed or "__fedmsg_" in play["hosts"]


@pytest.mark.parametrize("playbook", ["deploy", "remove"])
def test_groups_of_other_names_are_obeyed(tmp_path: Path, playbook: str) -> None:
    found = run(tmp_path, OTHER_NAMES, ROOT / f"playbooks/{playbook}.yml")
    assert found.returncode != 0, found.output
    assert set(re.findall(r"^fatal: \[(\w+)\]: UNREACHABLE!", found.output, re.M)) == {
        "gw01",
        "app01",
    }
    assert "web01" not in found.output


def test_a_run_without_hosts_is_an_error(tmp_path: Path) -> None:
    """Whatever the reason is, the message has the name of the group, and the variable for it."""
    wanted = {
        # no host at all; none that runs a relay; none of an example
        "deploy": (inventory(), "bus", (), "fedmsg_bus (fedmsg_base_bus_group)"),
        "restart": (OTHER_NAMES, "app", ("--limit=app01",), "(fedmsg_base_relay_group)"),
        "examples": (OTHER_NAMES, "none", (), "fedmsg_example_git, fedmsg_example_service"),
        "remove": (OTHER_NAMES, "from", ("--extra-vars=from=pkgs09",), "pkgs09"),
    }
    for playbook, (hosts, directory, options, said) in wanted.items():
        found = run(tmp_path / directory, hosts, ROOT / f"playbooks/{playbook}.yml", *options)
        assert found.returncode != 0, found.output
        assert said in found.failures, found.output
        assert "UNREACHABLE" not in found.output


def test_two_buses_of_one_inventory_are_looked_at_one_by_one(tmp_path: Path) -> None:
    staging = {"fedmsg_base_bus_group": "stg_bus", "fedmsg_base_relay_group": "stg_relays"}
    both = {
        **OTHER_NAMES,
        **inventory(stg_bus=(["stg01", "stg02"], staging), stg_relays=(["stg02"], {})),
    }
    found = run(tmp_path, both, ROOT / "playbooks/deploy.yml")
    assert found.returncode != 0, found.output
    assert "hosts of 2 buses: msg_bus, stg_bus" in found.failures
    assert "--limit msg_bus" in found.failures
    assert "UNREACHABLE" not in found.output
    found = run(tmp_path, both, ROOT / "playbooks/deploy.yml", "--limit=stg_bus")
    assert set(re.findall(r"^fatal: \[(\w+)\]: UNREACHABLE!", found.output, re.M)) == {
        "stg01",
        "stg02",
    }
