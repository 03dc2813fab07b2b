"""What the roles learn of a host: the program that they run there."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SURVEY = runpy.run_path(str(ROOT / "files/ansible/survey.py"))


class TestWhoMayConnect:
    def allowed(self, networks: list[str], **hosts: str) -> dict[str, Any]:
        found: dict[str, Any] = SURVEY["allowed"](networks, hosts)
        return found

    def test_hosts_in_no_network(self) -> None:
        found = self.allowed(["192.0.2.0/24"], a="192.0.2.7", b="198.51.100.7", c="2001:db8::7")
        assert found["outside"] == {"b": "198.51.100.7", "c": "2001:db8::7"}

    def test_this_machine_is_never_outside(self) -> None:
        assert self.allowed(["192.0.2.0/24"], a="127.0.0.1")["outside"] == {}

    def test_a_host_that_cannot_be_looked_up_is_given_the_benefit(self) -> None:
        assert self.allowed(["192.0.2.0/24"], a="no-such-host.invalid")["outside"] == {}

    def test_nobody_is_outside_where_everybody_may(self) -> None:
        assert self.allowed([], a="192.0.2.7") == {"wrong": {}, "outside": {}}

    def test_what_is_no_network(self) -> None:
        wrong = self.allowed(["10.0.0.1/8", "all", "10.0.0.0/8"])["wrong"]
        assert list(wrong) == ["10.0.0.1/8", "all"]
        assert "host bits set" in wrong["10.0.0.1/8"]


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
