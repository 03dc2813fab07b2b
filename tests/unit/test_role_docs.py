"""roles/*/README.md: what they say of variables is what the argument specs say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

ROLES = ("fedmsg_base", "fedmsg_bridge", "fedmsg_relay", "fedmsg_monitoring")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools/role-docs"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("roles", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    return tmp_path


def test_they_are_current() -> None:
    found = run(ROOT, "--check")
    assert not found.returncode, f"run `make docs` and commit what it changes:\n{found.stderr}"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_in_them_with_its_default(role: str) -> None:
    readme = (ROOT / f"roles/{role}/README.md").read_text()
    defaults = yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())
    assert len(defaults) > 5
    for name, default in defaults.items():
        [row] = [line for line in readme.splitlines() if line.startswith(f"| `{name}` | ")]
        # A default that is an expression is said as the value that it has, or by the description.
        if isinstance(default, str) and "{{" not in default:
            assert f" | `{default}` | " in row


@pytest.mark.parametrize(
    ("is_now", "changed", "line"),
    [
        ("default: 10\n", "default: 20\n", "| `20` | Seconds without a sign of life"),
        ("Rotated logs that are kept.", "Logs that C(x|y) keeps.", "| Logs that `x\\|y` keeps. |"),
    ],
)
def test_a_change_makes_them_stale_until_they_are_written(
    copy: Path, is_now: str, changed: str, line: str
) -> None:
    specs = copy / "roles/fedmsg_relay/meta/argument_specs.yml"
    assert is_now in specs.read_text()
    specs.write_text(specs.read_text().replace(is_now, changed))
    found = run(copy, "--check")
    assert (found.returncode, line in found.stderr) == (1, True), found.stderr
    assert "roles/fedmsg_relay/README.md" in run(copy).stdout
    assert run(copy, "--check").returncode == 0
    # What a person wrote is as it was.
    above = (ROOT / "roles/fedmsg_relay/README.md").read_text().partition("<!--")[0]
    assert (copy / "roles/fedmsg_relay/README.md").read_text().startswith(above)


def test_a_readme_without_marks_is_refused(copy: Path) -> None:
    (copy / "roles/fedmsg_relay/README.md").write_text("# fedmsg_relay\n")
    found = run(copy)
    assert found.returncode == 1
    assert "roles/fedmsg_relay/README.md lacks a mark" in found.stderr
