"""Python on hosts looks for modules in no directory that somebody else can write.

A file named like a module of the standard library, in the home of whoever Ansible logs in as, would
otherwise run as root: Python looks into the working directory first when a program is an argument.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert {name for name, _ in found} >= {"stage.py", "web.py"}
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
