"""What the tests of publishers and of the drain share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Bus


@pytest.fixture
def spool(bus: Bus) -> Path:
    """A spool, and a journal and submit address for the relay of the bus."""
    path = bus.directory / "spool"
    path.mkdir()
    bus.with_journal(publisher_spool=str(path))
    return path
