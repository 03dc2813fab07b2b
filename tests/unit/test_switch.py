"""The package of the programs is replaced as a whole, as the roles do it on a host."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.programs import Child

switch = runpy.run_path(str(ROOT / "files/ansible/switch.py"))["switch"]
PIN = (ROOT / "files/fedmsg_relay/__init__.py").read_text()
# A program that is started, says so, and imports more when it is told to.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import fedmsg_relay
print("begun", flush=True)
sys.stdin.readline()
from fedmsg_relay import one, two
print(one.RELEASE, two.RELEASE)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return tmp_path / "fedmsg_relay"


def deploy(package: Path, **modules: str | None) -> None:
    def put(path: str, content: str | None) -> None:
        if content is None:
            Path(path).unlink()
        else:
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text(content)

    switch(str(package), {f"{package}/{name}.py": text for name, text in modules.items()}, put)


def release(package: Path, name: str) -> None:
    deploy(package, __init__=PIN, one=f"RELEASE = {name!r}", two=f"RELEASE = {name!r}")


def contents(package: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in package.glob("*.py")}


@pytest.fixture
def begun(package: Path) -> Iterator[Child]:
    """A program that has begun with the first of two releases."""
    release(package, "first")
    with Child(
        [sys.executable, "-c", PROGRAM, str(package.parent)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        yield program
        program.kill()


def test_what_has_begun_goes_on_with_its_own_release(package: Path, begun: Child) -> None:
    release(package, "second")
    assert begun.communicate("\n", timeout=30)[0] == "first first\n"
    assert contents(package)["one.py"] == "RELEASE = 'second'"


def test_the_release_before_stays_and_no_other(package: Path) -> None:
    for name in ("first", "second", "third"):
        release(package, name)
    found = {
        directory.name: (directory / "fedmsg_relay/one.py").read_text()
        for directory in (package.parent / "releases").iterdir()
    }
    assert found == {"2": "RELEASE = 'second'", "3": "RELEASE = 'third'"}
    assert sorted(path.name for path in package.parent.iterdir()) == ["fedmsg_relay", "releases"]
    # Wherever it is moved to with all that is beside it.
    assert package.readlink() == Path("releases/3/fedmsg_relay")


def test_only_what_changes_is_written_anew(package: Path) -> None:
    release(package, "first")
    unchanged = (package / "one.py").stat().st_mtime_ns
    deploy(package, two=None, three="RELEASE = 3")
    assert sorted(contents(package)) == ["__init__.py", "one.py", "three.py"]
    assert (package / "one.py").stat().st_mtime_ns == unchanged
    assert list((package / "__pycache__").glob("three.*.pyc"))


def test_a_folder_goes_with_the_last_file_in_it(package: Path) -> None:
    release(package, "first")
    deploy(package, **{"room/__init__": "", "room/one": "", "other/__init__": ""})
    assert (package / "room/__pycache__").is_dir()
    deploy(package, **{"room/__init__": None, "room/one": None})
    assert not (package / "room").exists()
    assert sorted(path.name for path in package.iterdir() if path.is_dir()) == [
        "__pycache__",
        "other",
    ]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_release_without_the_link_gets_it(
    package: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.mkdir()
    (package / "one.py").write_text("RELEASE = 0")
    (package / "kept.py").write_text("")
    if not can_exchange:
        # As where the file system has no such thing: EINVAL.
        monkeypatch.setitem(switch.__globals__, "EXCHANGE", 1 << 30)
    deploy(package, one="RELEASE = 1")
    assert package.is_symlink()
    assert contents(package) == {"one.py": "RELEASE = 1", "kept.py": ""}
    assert sorted(path.name for path in package.parent.iterdir()) == ["fedmsg_relay", "releases"]


def test_one_that_is_cut_off_changes_nothing_and_is_made_good(package: Path) -> None:
    release(package, "first")

    def full(path: str, content: str) -> None:
        Path(path).write_text(content[:3])
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        switch(str(package), {f"{package}/one.py": "RELEASE = 'second'"}, full)
    assert contents(package)["one.py"] == "RELEASE = 'first'"
    # What would have been the link, of a run that ended between the two.
    (package.parent / "fedmsg_relay.new").symlink_to("releases/2/fedmsg_relay")
    release(package, "second")
    assert contents(package)["one.py"] == "RELEASE = 'second'"
    assert not (package.parent / "fedmsg_relay.new").is_symlink()
