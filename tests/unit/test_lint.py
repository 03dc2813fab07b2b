"""tools/lint, and .pre-commit-config.yaml, which runs its quick half."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml

from tests.support.programs import ROOT, run

LINT = (ROOT / "tools/lint").read_text(encoding="utf-8")
CHECKS = re.findall(r'^(quick|slow) (?:"([^"]+)"|(\S+)) ', LINT, re.M)
QUICK = [quoted or plain for half, quoted, plain in CHECKS if half == "quick"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))


def lint(*names: str) -> tuple[int, str]:
    done = run([ROOT / "tools/setup/run", ROOT / "tools/lint", *names])
    return done.returncode, done.stdout + done.stderr


def test_hooks_are_the_quick_half_of_lint() -> None:
    [local] = HOOKS["repos"]
    assert local["repo"] == "local"
    assert len(QUICK) > 4 and len(QUICK) < len(CHECKS)
    assert [hook["name"] for hook in local["hooks"]] == QUICK


@pytest.mark.parametrize("hook", HOOKS["repos"][0]["hooks"], ids=lambda hook: hook["id"])
def test_a_hook_runs_the_check_that_it_names(hook: dict[str, Any]) -> None:
    assert shlex.split(hook["entry"]) == ["tools/setup/run", "tools/lint", hook["name"]]
    assert hook["language"] == "system" and hook["pass_filenames"] is False
    assert re.sub(r"\W", "-", hook["name"]) == hook["id"]


def test_checks_that_are_named_run_alone() -> None:
    assert lint("locks", "python 3.9") == (
        0,
        "lint: python 3.9: ok\nlint: locks: ok\nlint: 2 passed, 0 failed\n",
    )


def test_a_name_of_no_check_is_refused() -> None:
    assert lint("ruf") == (2, "lint: no check is called ruf\n")


def test_ansible_lint_does_not_follow_the_project_into_itself() -> None:
    """By the link of collections/, below which every file is there 40 times."""
    code = (
        "import json, sys\n"
        "from ansiblelint.cli import get_config\n"
        "from ansiblelint.file_utils import discover_lintables\n"
        "options = get_config([])\n"
        "print(json.dumps(sorted(discover_lintables(options))))\n"
    )
    done = run([ROOT / "tools/setup/run", "python", "-c", code], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    link = "collections/ansible_collections"
    assert [file for file in found if file.startswith(link)] == []
    # And it loses none: what git knows of Ansible's is among them.
    known = run(["git", "ls-files", "roles", "playbooks", "molecule", "plugins"], cwd=ROOT)
    there = {file for file in known.stdout.splitlines() if not (ROOT / file).is_dir()}
    assert there and there - set(found) == set()
