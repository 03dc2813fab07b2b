"""Fixtures: where upstream is, and a bus for one test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from .bus import Bus


@pytest.fixture(scope="session")
def peer_venv() -> Path:
    """The virtual environment with upstream's fedmsg (requirements/peer.txt)."""
    value = os.environ.get("FEDMSG_PEER_VENV", "")
    path = Path(value)
    if not value or not (path / "bin" / "fedmsg-relay").is_file():
        pytest.fail(
            "FEDMSG_PEER_VENV must be the path of a virtual environment with what"
            f" requirements/peer.txt lists; it is {value!r}. `make test` sets it up.",
            pytrace=False,
        )
    return path.resolve()


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
