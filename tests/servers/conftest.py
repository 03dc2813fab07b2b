"""Fixtures: the servers, and a bus on which nothing of theirs is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Bus
from tests.support import venvs

from .publishers import PROGRAMS, Publishers


@pytest.fixture(scope="session")
def venv() -> Path:
    """The virtual environment with the servers (requirements/servers.txt)."""
    return venvs.of("FEDMSG_SERVERS_VENV", "gunicorn", "servers.txt", "servers")


@pytest.fixture
def publishers(bus: Bus, venv: Path) -> Publishers:
    spool = bus.directory / "spool"
    spool.mkdir()
    bus.with_journal(publisher_spool=str(spool))
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, bus.directory)
    return Publishers(bus, venv, spool)
