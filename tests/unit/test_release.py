"""What a deploy replaces is kept, and can be put back: the program that the roles run on a host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

# As the roles put it together.
PROGRAM = "".join(
    (ROOT / "files/ansible" / name).read_text() for name in ("place.py", "switch.py", "release.py")
)


class Machine:
    """A library and a file of the config, as a deploy would write them."""

    def __init__(self, directory: Path) -> None:
        self.library = directory / "fedmsg-relay"
        self.config = directory / "base.py"
        self.kept = directory / "fedmsg-relay.previous"

    def deploy(self, version: str, run: str, **modules: str) -> str:
        """What was said of keeping. The deploy does not come to its end."""
        said = self.ask("keep", run)
        package = self.library / "fedmsg_relay"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
        for name, content in modules.items():
            (package / name).parent.mkdir(exist_ok=True)
            (package / f"{name}.py").write_text(content)
        self.config.write_text(f"config = {version!r}\n")
        return said

    def ask(self, action: str, run: str = "", only_look: bool = False) -> str:
        request = {
            "action": action,
            "library": str(self.library),
            "files": [str(self.config)],
            "run": run,
            "only_look": only_look,
        }
        done = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(request), text=True,
                              capture_output=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("look"))
        return found

    def state(self) -> dict[str, str]:
        paths = [*(self.library / "fedmsg_relay").rglob("*.py"), self.config]
        return {str(path): path.read_text() for path in paths}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_first_deploy_has_nothing_to_keep(machine: Machine) -> None:
    assert machine.deploy("1", "a") == ""
    assert machine.look() == {"kept": False}


def test_the_schema_is_found_in_either_kind_of_release(machine: Machine) -> None:
    """The package of 0.1.0 had no rooms."""
    machine.deploy("1", "a", journal="SCHEMA_VERSION = 2\n")
    machine.deploy("2", "b", **{"journal/store": "SCHEMA_VERSION = 3\n"})
    (machine.library / "fedmsg_relay/journal.py").unlink()
    machine.ask("close")
    assert machine.look()["schema"] == {"now": 3, "kept": 2}
    machine.ask("restore", "c")
    assert machine.look()["schema"] == {"now": 2, "kept": 3}
    assert not (machine.library / "fedmsg_relay/journal").exists()


def test_put_back_and_forward_again(machine: Machine) -> None:
    machine.deploy("1", "a", gone="x = 1\n", journal="SCHEMA_VERSION = 1\n")
    older = machine.state()
    assert machine.deploy("2", "b", new="y = 1\n", journal="SCHEMA_VERSION = 2\n") == "kept 1"
    (machine.library / "fedmsg_relay/gone.py").unlink()
    newer = machine.state()
    machine.ask("close")
    found = machine.look()
    assert (found["run"], found["version"], found["schema"]) == ("b", "1", {"now": 2, "kept": 1})
    assert "-config = '2'\n+config = '1'\n" in found["diff"]
    assert {line[0] for line in found["changes"]} == {"+", "-", "~"}
    assert machine.ask("restore", "c", only_look=True).splitlines() == found["changes"]
    assert machine.state() == newer
    assert machine.ask("restore", "c").splitlines() == found["changes"]
    assert machine.state() == older
    assert machine.look()["version"] == "2"
    machine.ask("restore", "d")
    assert machine.state() == newer


def test_deploy_that_failed_does_not_take_the_place_of_the_one_that_worked(
    machine: Machine,
) -> None:
    machine.deploy("1", "a")
    worked = machine.state()
    machine.deploy("2", "b")
    assert machine.deploy("3", "c") == ""
    machine.ask("restore", "d")
    assert machine.state() == worked
    # That was the end of it: the next one keeps what it replaces.
    assert machine.deploy("4", "e") == "kept 1"


def test_deploys_that_came_to_their_end_keep_the_last(machine: Machine) -> None:
    for version in ("1", "2", "3"):
        machine.deploy(version, version)
        machine.ask("close")
    assert machine.look()["version"] == "2"


def test_asking_beforehand_changes_nothing(machine: Machine) -> None:
    machine.deploy("1", "a")
    assert machine.ask("keep", "b", only_look=True) == "kept 1"
    assert not machine.kept.exists()


def test_restoring_that_was_cut_off_is_made_good(machine: Machine) -> None:
    machine.deploy("1", "a")
    older = machine.state()
    machine.deploy("2", "b")
    newer = machine.state()
    machine.ask("restore", "c")
    # As it would be if that had ended after the first file.
    kept, beside = machine.kept / "release.json", machine.kept / "release.json.new"
    kept.rename(beside)
    machine.ask("keep", "x", only_look=True)
    was = json.loads(beside.read_text())
    was["files"] = {path: {**file, "content": older.get(path, file["content"])}
                    for path, file in was["files"].items() if file}  # fmt: skip
    kept.write_text(json.dumps(was))
    machine.config.write_text("config = '2'\n")
    machine.ask("restore", "c")
    assert machine.state() == older
    machine.ask("restore", "d")
    assert machine.state() == newer


def test_only_root_can_read_what_is_kept(machine: Machine) -> None:
    machine.deploy("1", "a")
    machine.deploy("2", "b")
    modes = [path.stat().st_mode & 0o777 for path in (machine.kept, machine.kept / "release.json")]
    assert modes == [0o700, 0o600]
