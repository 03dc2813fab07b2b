"""The virtual environments of what we are tested with; tools/setup/venv makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def of(variable: str, program: str, requirements: str, target: str) -> Path:
    """The one whose path is in this variable of the environment. It has this program.

    Ends the test where it is not there, and says which target of make sets it up.
    """
    value = os.environ.get(variable, "")
    path = Path(value)
    if not value or not (path / "bin" / program).is_file():
        pytest.fail(
            f"{variable} must be the path of a virtual environment with what"
            f" requirements/{requirements} lists; it is {value!r}. `make {target}` sets it up.",
            pytrace=False,
        )
    return path.resolve()
