"""files/man: a manual page for each command, which says what --help says and reads well."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import ROOT, environment, module, run

PAGES = sorted((ROOT / "files/man").iterdir())
COMMANDS = {
    "fedmsg-amqp-bridge": module("amqp_bridge"),
    "fedmsg-amqp-verify": module("amqp_verify"),
    "fedmsg-logger": module("logger"),
    "fedmsg-probe": module("probe"),
    "fedmsg-relay": [sys.executable, str(ROOT / "relay.py")],
    "fedmsg-tail": module("tail"),
}


def made(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, root / "tools/man-pages", *options], cwd=root, env=environment())


def plain(page: Path) -> str:
    """What a reader sees, in lines of any length."""
    words = ["man", "--local-file", "--encoding=UTF-8", "--no-hyphenation", str(page)]
    shown = run(words, env=environment(MANWIDTH="200", MAN_KEEP_FORMATTING="")).stdout
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", str(shown))


def test_pages_are_current() -> None:
    done = made(ROOT, "--check")
    assert not done.returncode, f"run `make docs` and commit what it changes:\n{done.stderr}"


def test_every_command_has_one() -> None:
    assert [page.stem for page in PAGES] == sorted(COMMANDS)
    assert {path.name for path in (ROOT / "files/bin").iterdir()} < COMMANDS.keys()


def test_a_changed_help_makes_them_stale(tmp_path: Path) -> None:
    for name in ("tools", "files"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    source = tmp_path / "files/fedmsg_relay/cli.py"
    source.write_text(source.read_text().replace("threads of ZeroMQ", "threads that speak"))
    done = run([sys.executable, "-I", tmp_path / "tools/man-pages", "--check"], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("+threads that speak\n") == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_of_help_is_in_the_page(page: Path) -> None:
    helped = run([*COMMANDS[page.stem], "--help"], env=environment(COLUMNS="200")).stdout
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)(?: (\S+))?(?:  +|\n +)(\S.*)$", helped, re.M)
    assert len(options) == len(re.findall(r"^  -", helped, re.M)) >= 4
    shown = plain(page)
    for option, value, text in options:
        heading = rf"^ +(?:-\w, )?{option}{f' {value}' if value else ''}$"
        assert re.search(heading, shown, re.M), option
        assert text in re.sub(r"\s+", " ", shown.replace("’", "'")), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_has_what_a_page_has(page: Path) -> None:
    shown = plain(page)
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES"):
        assert re.search(rf"^{title}$", shown, re.M), title
    assert re.search(rf"^ +{page.stem} - \w", shown, re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_formatters_have_nothing_to_say(page: Path) -> None:
    linted = run(["mandoc", "-Tlint", page])
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
    warned = run(["man", "--warnings", "--local-file", page], env=environment(LC_ALL="C.UTF-8"))
    assert (warned.returncode, warned.stderr) == (0, "")
