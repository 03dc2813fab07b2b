"""Fixtures: the servers, and a bus on which nothing of theirs is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Bus

from .publishers import PROGRAMS, Publishers


@pytest.fixture(scope="session")
def venv() -> Path:
    """The virtual environment with the servers (requirements/servers.txt)."""
    value = os.environ.get("FEDMSG_SERVERS_VENV", "")
    path = Path(value)
    if not value or not (path / "bin" / "gunicorn").is_file():
        pytest.fail(
            "FEDMSG_SERVERS_VENV must be the path of a virtual environment with what"
            f" requirements/servers.txt lists; it is {value!r}. `make servers` sets it up.",
            pytrace=False,
        )
    return path.resolve()


@pytest.fixture
def publishers(bus: Bus, venv: Path) -> Publishers:
    spool = bus.directory / "spool"
    spool.mkdir()
    bus.with_journal(publisher_spool=str(spool))
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, bus.directory)
    return Publishers(bus, venv, spool)
