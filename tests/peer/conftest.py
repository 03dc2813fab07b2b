"""Fixtures: where upstream is, and a bus for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support import venvs

from .bus import Bus


@pytest.fixture(scope="session")
def peer_venv() -> Path:
    """The virtual environment with upstream's fedmsg (requirements/peer.txt)."""
    return venvs.of("FEDMSG_PEER_VENV", "fedmsg-relay", "peer.txt", "test")


@pytest.fixture
def make_bus(tmp_path: Path, peer_venv: Path) -> Iterator[Callable[..., Bus]]:
    """Make a bus, with values for config keys; it ends with the test."""
    made: list[Bus] = []

    def make(**keys: Any) -> Bus:
        made.append(Bus(tmp_path / f"bus{len(made)}", peer_venv, **keys))
        return made[-1]

    yield make
    for bus in made:
        bus.__exit__(None, None, None)


@pytest.fixture
def bus(make_bus: Callable[..., Bus]) -> Bus:
    return make_bus()
