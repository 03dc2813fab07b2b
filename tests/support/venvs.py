"""The virtual environments of what we are tested with; tools/setup/venv makes them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import programs

# Prints where environments are kept.
CACHE = Path(__file__).parents[2] / "tools" / "setup" / "cache"


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


def cached(name: str, content: bytes, build: Callable[[Path], None]) -> Path:
    """A virtual environment that is made once for this `content`, in the cache of tools/setup/venv.

    `build` puts into it what is wanted. What the environment has is not to be changed afterwards:
    other runs use it at the same time.
    """
    python = platform.python_version()
    cache = Path(programs.run([CACHE], env=os.environ, check=True).stdout.strip())
    venv = cache / "venvs" / f"{name}-py{python}-{hashlib.sha256(content).hexdigest()[:16]}"
    for directory in (venv.parent, cache / "locks"):
        directory.mkdir(parents=True, exist_ok=True)
    with (cache / "locks" / f"venv-{venv.name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / ".complete").exists():
            shutil.rmtree(venv, ignore_errors=True)
            programs.run([sys.executable, "-m", "venv", venv], check=True)
            build(venv)
            (venv / ".complete").touch()
    return venv


def beside(venv: Path, packages: Path) -> Path:
    """A new virtual environment without pip that sees `packages`, a directory, after its own."""
    programs.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [site] = venv.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(f"{packages}\n", encoding="utf-8")
    return venv
