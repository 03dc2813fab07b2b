"""results.json: the rows of each part, as they were measured, and where that was."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import zmq

from tests.support.programs import ROOT

from .plan import Plan, Row
from .subjects import peer_venv


def keep(directory: Path, part: str, plan: Plan, rows: list[Row]) -> None:
    """Put the rows of a part in the place of those it had."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = load(directory)
    measured = {"date": time.strftime("%Y-%m-%d"), "quick": plan.quick, "where": environment(plan)}
    parts[part] = {**measured, "rows": rows}
    (directory / "results.json").write_text(_dumped(parts), encoding="utf-8")


def load(directory: Path) -> dict[str, Any]:
    path = directory / "results.json"
    parts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return parts


def _dumped(parts: dict[str, Any]) -> str:
    """One row a line: what changes in a figure is a line of the diff."""
    shown = []
    for name, part in parts.items():
        head = json.dumps({key: value for key, value in part.items() if key != "rows"})
        rows = ",\n".join(json.dumps(_rounded(row)) for row in part["rows"])
        shown.append(f'"{name}": {head[:-1]}, "rows": [\n{rows}\n]}}')
    return "{\n" + ",\n".join(shown) + "\n}\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(found) for key, found in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def environment(plan: Plan) -> dict[str, str]:
    """Machine and versions."""
    peer = _versions([str(peer_venv() / "bin" / "python")])
    return {
        "machine": f"{os.cpu_count()} x {_cpu_model()}, {_memory()} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "orjson": _version_of("orjson"),
        "ansible-core": _version_of("ansible-core"),
        "SQLite": sqlite3.sqlite_version,
        "upstream": peer,
        "relay": ", ".join(_commit(checkout) for checkout in plan.checkouts),
        "file system": _file_system(),
    }


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _versions(python: list[str]) -> str:
    source = (
        "import platform, zmq, importlib.metadata as m;"
        'print(f\'fedmsg {m.version("fedmsg")}, Python {platform.python_version()},'
        " pyzmq {zmq.pyzmq_version()}, libzmq {zmq.zmq_version()}')"
    )
    return _output([*python, "-c", source])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))


def _commit(checkout: Path) -> str:
    return _output(["git", "-C", str(checkout), "describe", "--always", "--dirty"])


def _file_system() -> str:
    return _output(["stat", "--file-system", "--format=%T", str(ROOT)])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
