"""The way to the commands without a deploy: `pip install '.[all]'` in a fresh virtual environment.

What the extras name comes from the network once for each content of pyproject.toml. The package
itself is installed anew each time, offline, into an environment that sees what came.
"""

from __future__ import annotations

import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fedmsg_relay import __version__

from tests.conftest import ROOT, Bus, wait_for
from tests.support import venvs
from tests.support.programs import bare_environment, run

COMMANDS = ("fedmsg-relay", "fedmsg-logger", "fedmsg-tail", "fedmsg-probe")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that what pip writes does not land in the tree that is being tested."""
    made = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE", "relay.py"):
        shutil.copy2(ROOT / name, made / name)
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "files", made / "files", symlinks=True, ignore=ignored)
    return made


@pytest.fixture(scope="module")
def packages(tree: Path) -> Path:
    """The venv that `pip install '.[all]'` was run in, whose packages are kept."""

    def build(venv: Path) -> None:
        pip = [str(venv / "bin/pip"), "install", "--quiet", "--no-input"]
        run([*pip, "setuptools>=61", "wheel", "--upgrade", "pip"], timeout=300, check=True)
        run([*pip, "--no-build-isolation", ".[all]"], cwd=tree, timeout=300, check=True)
        run([venv / "bin/pip", "uninstall", "--quiet", "--yes", "fedmsg-relay"], check=True)

    return venvs.cached("installed", PYPROJECT.encode(), build)


def installed(venv: Path, packages: Path, beside: Path, tree: Path, wanted: str) -> Path:
    """The bin directory of a new venv with `wanted`, without a network."""
    venvs.beside(venv, beside)
    pip: list[str | Path] = [packages / "bin/pip", "--python", venv / "bin/python", "install"]
    done = run(
        [*pip, "--quiet", "--no-index", "--no-build-isolation", wanted], cwd=tree, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return venv / "bin"


@pytest.fixture(scope="module")
def with_all(packages: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    [site] = packages.glob("lib/python*/site-packages")
    return installed(tmp_path_factory.mktemp("all") / "venv", packages, site, tree, ".[all]")


@pytest.fixture(scope="module")
def with_none(packages: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without extras, and beside nothing but pyzmq and what builds the package."""
    directory = tmp_path_factory.mktemp("none")
    (directory / "packages").mkdir()
    [site] = packages.glob("lib/python*/site-packages")
    for path in site.iterdir():
        if re.match(r"zmq|pyzmq|setuptools|pkg_resources|_distutils|distutils|wheel", path.name):
            (directory / "packages" / path.name).symlink_to(path)
    return installed(directory / "venv", packages, directory / "packages", tree, ".")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("which", ["with_all", "with_none"])
def test_each_command_is_there(
    which: str, command: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    programs: Path = request.getfixturevalue(which)
    done = run([programs / command, "--version"], env=bare_environment(tmp_path), cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"{command} {__version__}\n", "")


def status_of(url: str) -> int:
    """Of an answer; 0 where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_message_goes_through_and_is_in_the_backlog(
    with_all: Path, bus: Bus, tmp_path: Path
) -> None:
    bus.with_journal(http=True)
    config = ["--config-filename", str(bus.config_directory)]
    bare = bare_environment(tmp_path, PYTHONPATH="")
    relay = bus.start(with_all / "fedmsg-relay", *config, **bare)
    relay.wait_for_line("ready")
    assert Path(f"/proc/{relay.pid}/comm").read_text() == "fedmsg-relay\n"
    probed = run([with_all / "fedmsg-probe", *config], env=bare)
    assert probed.returncode == 0, probed.stdout
    logged = run([with_all / "fedmsg-logger", *config, "--message", "by pip"], env=bare)
    assert logged.returncode == 0, logged.stderr
    url = f"http://{bus.http}"
    wait_for(lambda: status_of(f"{url}/health") == 200, what="a healthy backlog")
    assert status_of(f"{url}/metrics") == 200
    with urllib.request.urlopen(f"{url}/raw", timeout=10) as answer:
        assert b'"by pip"' in answer.read()


def test_a_relay_with_http_and_without_waitress_says_what_to_install(
    with_none: Path, bus: Bus, tmp_path: Path
) -> None:
    bus.with_journal(http=True)
    config = ["--config-filename", str(bus.config_directory)]
    done = run([with_none / "fedmsg-relay", *config], env=bare_environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "fedmsg-relay: relay_http: waitress is not installed: install the package"
        " python3-waitress (or `pip install waitress`), or take relay_http out of the config"
    )


def test_all_is_what_the_other_extras_are() -> None:
    section = PYPROJECT.partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^(\w+) = \[(.*)\]$", section, re.M)
    by_name = {name: re.findall(r'"([^"]+)"', packages) for name, packages in listed}
    rest = [each for name, listed in by_name.items() if name != "all" for each in listed]
    assert sorted(by_name["all"]) == sorted(rest) and len(rest) > 3
