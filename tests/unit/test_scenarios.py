"""Every Molecule scenario has the playbooks that the steps of its test need.

Molecule looks for them only when a step begins, some after minutes, and one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

# Steps that fail without their playbook; of the others Molecule says that it is missing, no more.
PLAYBOOKS = {
    "syntax": "converge",
    "check": "converge",
    "converge": "converge",
    "idempotence": "converge",
    "create": "create",
    "destroy": "destroy",
}
SCENARIOS = sorted(path.parent for path in (ROOT / "molecule").glob("*/molecule.yml"))


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


SHARED = read(ROOT / ".config/molecule/config.yml")


def steps(own: dict[str, Any]) -> set[str]:
    return set(own.get("scenario", {}).get("test_sequence") or SHARED["scenario"]["test_sequence"])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_a_scenario_has_the_playbooks_of_its_steps(scenario: Path) -> None:
    own = read(scenario / "molecule.yml")
    named = SHARED["ansible"]["playbooks"] | own.get("ansible", {}).get("playbooks", {})
    needed = {PLAYBOOKS[step] for step in steps(own) & PLAYBOOKS.keys()}
    missing = {name for name in needed if not (scenario / named.get(name, f"{name}.yml")).is_file()}
    assert not missing


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_a_scenario_that_has_a_playbook_or_tests_runs_them(scenario: Path) -> None:
    run = steps(read(scenario / "molecule.yml"))
    for step in ("prepare", "side_effect", "cleanup"):
        assert step in run or not (scenario / f"{step}.yml").exists(), step
    assert "verify" in run or not (scenario / "tests").exists()
