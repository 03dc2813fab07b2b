"""docs/include/variables.adoc: it has what is said elsewhere, as it is said there now."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

INCLUDE = ROOT / "docs/include/variables.adoc"
NAMED = dict(re.findall(r"^:([\w-]+): ?(.*)$", INCLUDE.read_text(), re.M))


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools/variables"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_file_is_current() -> None:
    found = check(ROOT)
    assert not found.returncode, f"run `make docs` and commit what it changes:\n{found.stderr}"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("docs", "files/fedmsg_relay", "inventory", "roles", "templates", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "is_now", "changed", "attribute"),
    [
        ("roles/fedmsg_relay/defaults/main.yml", "_keep: 14", "_keep: 7", "logrotate_keep: 7"),
        ("roles/fedmsg_base/vars/main.yml", "port: 2004", "port: 2005", "submit_port: 2005"),
        ("templates/fedmsg-spool.timer.j2", "00/30", "00/10", "spool_interval_sec: 10"),
        ("inventory/production/hosts.yml", "3998]", "3997]", "inbound_ports: 9941 and 3997"),
        ("files/fedmsg_relay/config.py", '"timeout": 2', '"timeout": 3', "timeout_sec: 3"),
    ],
)
def test_a_change_makes_it_stale(
    copy: Path, path: str, is_now: str, changed: str, attribute: str
) -> None:
    source = (copy / path).read_text()
    assert is_now in source
    (copy / path).write_text(source.replace(is_now, changed))
    found = check(copy)
    assert found.returncode == 1
    assert f"{attribute}\n" in found.stderr


@pytest.mark.parametrize(
    "role", ["fedmsg_base", "fedmsg_bridge", "fedmsg_relay", "fedmsg_monitoring"]
)
def test_a_default_is_said_once(role: str) -> None:
    """The roles' documentation says the same as their defaults."""
    specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    for name, option in specs["argument_specs"]["main"]["options"].items():
        # The relay's role takes the other's variables, and says them by reference.
        if "default" in option and name.startswith(role):
            value = option["default"]
            said = " and ".join(map(str, value)) if isinstance(value, list) else str(value)
            assert NAMED[name] == (said.lower() if isinstance(value, bool) else said)


def test_hosts_of_the_documents_are_in_production() -> None:
    hosts = re.findall(r"\w+", NAMED["bus_hosts"].replace(" and ", " "))
    assert {NAMED["relay_host"], NAMED["listener_host"], NAMED["publisher_host"]} == set(hosts)


def test_the_readme_says_the_same() -> None:
    """It cannot include the file: those who read it read its source."""
    readme = (ROOT / "README.md").read_text()
    assert f"|        inbound port {NAMED['inbound_port']}          |" in readme
    assert f"|        outbound port {NAMED['outbound_port']}         |" in readme


def test_the_page_about_deploying_takes_defaults_from_there() -> None:
    page = (ROOT / "docs/deploying.adoc").read_text()
    rows = re.findall(r"^\|`(fedmsg_base_\w+)`\n\|(.+)\n", page, re.M)
    assert len(rows) > 6
    for name, default in rows:
        if name != "fedmsg_base_address":  # of each host
            assert f"{{{name}}}" in default and name in NAMED
