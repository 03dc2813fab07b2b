"""The README's other way to get the commands: `pip install -e .` in a fresh virtual environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Bus


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a virtual environment that has the tree, or a copy of it, installed."""
    directory = tmp_path_factory.mktemp("install")
    # A copy, so that the metadata pip writes does not land in the tree that is being tested.
    tree = directory / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "relay.py"):
        shutil.copy2(ROOT / name, tree / name)
    shutil.copytree(ROOT / "files", tree / "files", symlinks=True)
    environment = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run(
        [environment / "bin/pip", "install", "--quiet", "--editable", "."], cwd=tree, check=True
    )
    return environment / "bin"


@pytest.mark.parametrize(
    "command", ["fedmsg-relay", "fedmsg-logger", "fedmsg-tail", "fedmsg-probe"]
)
def test_each_command_is_there(installed: Path, command: str) -> None:
    result = subprocess.run(
        [installed / command, "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    from fedmsg_relay import __version__

    assert result.stdout == f"{command} {__version__}\n"


def test_a_message_goes_through_by_the_installed_commands(installed: Path, bus: Bus) -> None:
    config = ["--config-filename", str(bus.config_directory)]
    relay = bus.start(installed / "fedmsg-relay", *config)
    relay.wait_for_line("ready")
    assert Path(f"/proc/{relay.pid}/comm").read_text() == "fedmsg-relay\n"
    probed = subprocess.run([installed / "fedmsg-probe", *config], capture_output=True, text=True)
    assert probed.returncode == 0, probed.stdout
    subprocess.run([installed / "fedmsg-logger", *config, "--message", "x"], check=True)
