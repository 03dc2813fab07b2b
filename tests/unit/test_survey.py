"""What the roles learn of a host: the program that they run there."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SURVEY = runpy.run_path(str(ROOT / "files/ansible/survey.py"))


class TestSpool:
    @pytest.fixture
    def spool(self, tmp_path: Path) -> Path:
        (tmp_path / "failed").mkdir()
        return tmp_path

    def spooled(self, spool: Path) -> dict[str, Any]:
        found: dict[str, Any] = SURVEY["spooled"](str(spool))
        return found

    def test_empty(self, spool: Path) -> None:
        assert self.spooled(spool) == {"waiting": 0, "failed": 0, "oldest": 0}
        assert self.spooled(spool / "none")["waiting"] == 0

    def test_since_when_the_oldest_waits(
        self, spool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (spool / "0000").write_text("first, by its name")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        found = self.spooled(spool)
        assert found["waiting"] == 1
        assert 3590 <= found["oldest"] <= 3600

    def test_failed(self, spool: Path) -> None:
        for name in ("1", "1.reason", ".lock"):
            (spool / "failed" / name).touch()
        assert self.spooled(spool) == {"waiting": 0, "failed": 1, "oldest": 0}


class TestSystem:
    """What its packages are called follows from this."""

    @pytest.mark.parametrize(
        ("os_release", "family", "name", "version"),
        [
            ('ID=debian\nVERSION_ID="13"\n', "Debian", "debian", "13"),
            ("ID=debian\n", "Debian", "debian", ""),  # testing has no number
            ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "Debian", "ubuntu", "24.04"),
            ("ID=fedora\nVERSION_ID=42\n", "RedHat", "fedora", "42"),
            ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "RedHat", "rocky", ""),
            ("ID=alpine\n", "alpine", "alpine", ""),
            ("", "linux", "linux", ""),
        ],
    )
    def test_family_and_version(
        self,
        os_release: str,
        family: str,
        name: str,
        version: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        system = SURVEY["operating_system"]
        lines = os_release.splitlines(keepends=True)
        monkeypatch.setitem(system.__globals__, "lines_of", lambda path: lines)
        assert system() == {"family": family, "id": name, "version": version}


class TestRead:
    def test_content_mode_and_owner(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("[Socket]\n")
        path.chmod(0o640)
        stat = path.stat()
        owner = f"{stat.st_uid}:{stat.st_gid}"
        found = {"content": "[Socket]\n", "mode": "0640", "owner": owner}
        assert SURVEY["contents"](str(path)) == found

    def test_what_is_no_file_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(__file__)
        for name in ("missing", "link", "."):
            assert SURVEY["contents"](str(tmp_path / name)) is None


def test_a_program_that_the_host_lacks_fails_like_one_that_fails() -> None:
    assert SURVEY["output_of"](["fedmsg-no-such-program"]) is None
