"""Python on hosts looks for modules in no directory that somebody else can write.

A file named like a module of the standard library, in the home of whoever Ansible logs in as, would
otherwise run as root: Python looks into the working directory first when a program is an argument.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

# What runs on hosts, or starts something there.
TREES = ("roles", "playbooks", "templates", "files")
# Python as a command: by a path or in quotes or after a shell's word, not the name of a package.
PYTHON = re.compile(r"""(?:/usr/bin/|["'\[]|\bexec |&& |\| )python3(?=["',\s\]]|$)(?P<rest>.*)""")
ISOLATED = re.compile(r"""^["']?,?\s*["']?-I\b""")


def texts() -> dict[Path, str]:
    paths = (path for tree in TREES for path in sorted((ROOT / tree).rglob("*")))
    return {
        path: path.read_text()
        for path in [ROOT / "relay.py", *paths]
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    }


def not_isolated(text: str) -> list[str]:
    return [
        line
        for line in text.splitlines()
        if "interpreter" not in line
        for found in PYTHON.finditer(line)
        if not ISOLATED.match(found["rest"])
    ]


def test_what_the_search_finds() -> None:
    assert not_isolated("argv: [/usr/bin/python3, -c, x]\n#!/usr/bin/python3\n['python3', '-c']")
    assert not_isolated("/usr/bin/python3 -c x && echo") and not_isolated("cd / && python3 -c x")
    assert not not_isolated(
        "argv: [/usr/bin/python3, -I, -c]\n#!/usr/bin/python3 -I\n- python3-zmq"
    )


def test_every_program_of_a_host_is_isolated() -> None:
    wrong = {str(path.relative_to(ROOT)): not_isolated(text) for path, text in texts().items()}
    assert {path: lines for path, lines in wrong.items() if lines} == {}


def test_every_program_that_python_starts_is_isolated() -> None:
    """Python that starts Python says so in the list that begins with sys.executable."""
    started = re.compile(r"\[\s*sys\.executable,\s*(?P<rest>[^\]]*)")
    found = [
        (path.name, match["rest"])
        for path, text in texts().items()
        for match in started.finditer(text)
    ]
    assert {name for name, _ in found} >= {"stage.py", "backlog_process.py"}
    assert [each for each in found if not each[1].startswith('"-I"')] == []


@pytest.mark.parametrize("program", ["survey", "stage", "former", "move", "remove", "firewall"])
def test_a_module_in_the_working_directory_is_not_run(tmp_path: Path, program: str) -> None:
    """With what the tasks say before the program, in a directory with a file of each such name."""
    mark = tmp_path / "mark"
    for name in sys.stdlib_module_names:
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    tasks = "".join(text for path, text in texts().items() if path.suffix == ".yml")
    options = {
        found.replace(",", " ").split()[0]
        for found in re.findall(r"/usr/bin/python3,(.*?-c),", tasks)
    }
    assert options == {"-I"}
    text = (ROOT / f"files/ansible/{program}.py").read_text()
    subprocess.run(
        [sys.executable, *options, "-c", text], cwd=tmp_path, input=json.dumps("no request"),
        text=True, capture_output=True,
    )  # fmt: skip
    assert not mark.exists(), mark.read_text()


# What Ansible runs on hosts besides our programs: its modules, through Python's standard input.
# By this variable Python (from 3.11 on) does not look for modules in the working directory.
SAFE = {"PYTHONSAFEPATH": "1"}
# What does something on the controller alone.
OF_THE_CONTROLLER = {"assert", "debug", "set_fact", "include_vars", "meta", "add_host", "fail"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def on_hosts(tasks: list[dict[str, Any]], is_safe: bool = False) -> Iterator[tuple[str, bool]]:
    """The name of each task that reaches for a host, or a file of tasks, and if it is safe."""
    for task in tasks:
        safe = is_safe or task.get("environment") == SAFE
        if "block" in task:
            for part in ("block", "rescue", "always"):
                yield from on_hosts(task.get(part, []), safe)
            continue
        [*modules] = [key for key in task if key.startswith("ansible.builtin.")]
        if modules and modules[0].rpartition(".")[2] not in OF_THE_CONTROLLER:
            options = task[modules[0]]
            applied = options.get("apply", {}) if isinstance(options, dict) else {}
            yield task["name"], safe or applied.get("environment") == SAFE


def test_what_is_found_of_tasks() -> None:
    command = {"name": "x", "ansible.builtin.command": {}}
    include = {"name": "y", "ansible.builtin.include_tasks": {"file": "z", "apply": {}}}
    checks = {"name": "z", "ansible.builtin.assert": {}}
    assert list(on_hosts([command, include, checks])) == [("x", False), ("y", False)]
    assert list(on_hosts([{"block": [command], "environment": SAFE}])) == [("x", True)]
    include["ansible.builtin.include_tasks"] = {"apply": {"environment": SAFE}}
    assert list(on_hosts([include])) == [("y", True)]


def plays() -> list[tuple[str, dict[str, Any]]]:
    paths = sorted((ROOT / "playbooks").glob("*.yml"))
    return [(path.name, play) for path in paths for play in load(path) if "hosts" in play]


def test_every_play_that_becomes_root_has_python_leave_the_working_directory_out() -> None:
    root = [(name, play) for name, play in plays() if play["become"]]
    assert {name for name, _ in root} >= {"deploy.yml", "move.yml", "rollback.yml", "check.yml"}
    assert [(n, play["name"]) for n, play in root if play.get("environment") != SAFE] == []


@pytest.mark.parametrize(
    "role", ["fedmsg_base", "fedmsg_bridge", "fedmsg_relay", "fedmsg_monitoring"]
)
def test_so_does_a_role_in_a_play_of_somebody_elses(role: str) -> None:
    """At each of the entry points that the roles' README names, and in handlers."""
    specs = load(ROOT / f"roles/{role}/meta/argument_specs.yml")
    paths = [ROOT / f"roles/{role}/tasks/{name}.yml" for name in specs["argument_specs"]]
    paths += (ROOT / f"roles/{role}/handlers").glob("*.yml")
    found = {path.name: list(on_hosts(load(path))) for path in paths}
    assert found["main.yml"] and "preflight.yml" in found
    unsafe = [(name, task) for name, tasks in found.items() for task, safe in tasks if not safe]
    assert unsafe == []
