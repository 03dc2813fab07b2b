"""Where a config is looked for: what cannot be entered or is a stranger's is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fedmsg_relay import config

from tests.unit.test_config import write

FOUND = "config = {'environment': 'stg'}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the working one of a user who is not root, and has no other config."""
    monkeypatch.setattr(config, "ETC_DIRECTORY", str(tmp_path / "none"))
    monkeypatch.setattr(config, "ETC_FILE", str(tmp_path / "none.py"))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_may_not_be_entered_is_passed_over(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir

    def refused(path: str) -> list[str]:
        if path != str(here / "none"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", refused)
    assert config.load()["environment"] == "dev"


def test_a_working_directory_that_was_removed_is_passed_over(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert config.load()["environment"] == "dev"
    monkeypatch.chdir(here)


@pytest.mark.parametrize("name", ["fedmsg.d/a.py", "fedmsg-config.py", "home/.fedmsg.d/a.py"])
@pytest.mark.parametrize(
    ("owner", "mode", "is_taken"),
    [(12345, 0o600, True), (0, 0o644, True), (54321, 0o644, False), (12345, 0o666, False)],
)
def test_only_what_this_user_and_root_can_write_is_executed(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    owner: int,
    mode: int,
    is_taken: bool,
) -> None:
    path = write(here, name, FOUND)
    os.chown(path, owner, owner)
    os.chmod(path, mode)
    assert config.load()["environment"] == ("stg" if is_taken else "dev")
    assert ("is passed over" in capsys.readouterr().err) is not is_taken


def test_a_directory_above_that_others_may_write_to_is_not_trusted(here: Path) -> None:
    write(here, "fedmsg.d/a.py", FOUND)
    here.chmod(0o777)
    assert config.load()["environment"] == "dev"
    here.chmod(0o1777)
    assert config.load()["environment"] == "stg"


def test_a_link_that_a_stranger_made_is_not_followed(here: Path) -> None:
    write(here, "mine/a.py", FOUND)
    link = here / "fedmsg.d"
    link.symlink_to("mine")
    assert config.load()["environment"] == "stg"
    os.chown(link, 54321, 54321, follow_symlinks=False)
    assert config.load()["environment"] == "dev"
