from __future__ import annotations

import json

import collection
import pytest


@pytest.fixture(scope="session")
def control() -> collection.Control:
    """The control host of the converge, with the collection installed."""
    return collection.Control(collection.STATE / "control")


@pytest.fixture(scope="session")
def first() -> collection.Run:
    """The converge: the first deploy, by the oldest ansible-core."""
    return collection.Run(**json.loads(collection.FIRST.read_text()))
