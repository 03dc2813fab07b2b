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
