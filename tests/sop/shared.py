"""Tests that several sets of hosts share: each is run once, by the first set that is free."""

from __future__ import annotations

import os
from pathlib import Path


class Shared:
    """`directory` is that of all sets, and has a file for each test that one has taken."""

    def __init__(self, directory: Path, set_name: str) -> None:
        self._directory = directory
        self._name = set_name
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def is_backward(self) -> bool:
        """Whether this set begins with the last test: two then meet somewhere in the middle, and
        neither waits for the other longer than one test takes."""
        return self._name.isdigit() and int(self._name) % 2 == 0

    def take(self, name: str) -> bool:
        """Whether the test is this set's, now or since earlier."""
        path = self._directory / name.replace("/", "-")
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return path.read_text() == self._name
        with os.fdopen(file, "w") as taken:
            taken.write(self._name)
        return True
