"""The fleet of the bench: as many names of an inventory as asked for, on a few hosts of the demo's.

A build has hosts of its own, deployed by itself, so that a run of it has nothing to change. Its
further names all lead to those hosts that run no relay.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.programs import ROOT, run

from .processes import MeasurementError

# As inventory/demo has them. ROLES are the packages that the roles need: a deploy loads none.
RELAY = "busgateway01"
HOSTS = {RELAY: "trixie", "app01": "bookworm", "pkgs01": "trixie"}
SUITES = [f"{host}={suite}+roles" for host, suite in HOSTS.items()]
PROGRAM = ROOT / "molecule" / "shared" / "hosts.py"

Variables = Mapping[str, Any]


def inventory(reached: Mapping[str, Variables], names: int) -> dict[str, Any]:
    """An inventory of so many names. `reached`: the variables by which each host is reached.

    Further names take turns in leading to the hosts without a relay. Raises MeasurementError if
    there are to be fewer names than hosts.
    """
    if names < len(reached):
        raise MeasurementError(f"{names} names are too few: there are {len(reached)} hosts")
    others = [host for host in reached if host != RELAY]
    hosts = {host: dict(said) for host, said in reached.items()}
    for number in range(names - len(reached)):
        hosts[f"node{number + 1:03}"] = dict(reached[others[number % len(others)]])
    common = {"ansible_python_interpreter": "/usr/bin/python3"}
    return {
        "fedmsg_bus": {"hosts": hosts, "vars": common},
        "fedmsg_relay": {"hosts": {RELAY: {}}},
    }


def checkout_of(commit: str, directory: Path) -> Path:
    """The files of a commit of this repository, in `directory`."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", commit], capture_output=True
    )
    if done.returncode:
        raise MeasurementError(
            f"git has no {commit}, which is to be compared with: `git fetch --unshallow` brings"
            f" the history. {done.stderr.decode(errors='replace').strip()}"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="tar")
    return directory


@contextlib.contextmanager
def hosts_of(builds: Sequence[str], state: Path) -> Iterator[dict[str, dict[str, Variables]]]:
    """Boot the hosts of each build; how each host is reached, by build. They go in the end.

    `state` gets the keys by which they are reached.
    """
    checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    places = {
        build: (f"--prefix=fedmsg-bench-{checkout}-{number}", f"--state={state / str(number)}")
        for number, build in enumerate(builds)
    }
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, state, ignore_errors=True)
        for place in places.values():
            ends.callback(_hosts, "down", *place)
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda place: _hosts("up", *place, *SUITES), places.values()):
                pass
        yield {build: _reached(state / str(number)) for number, build in enumerate(builds)}


def _reached(state: Path) -> dict[str, Variables]:
    known = json.loads((state / "inventory.json").read_text(encoding="utf-8"))["all"]["hosts"]
    return {host: known[host] for host in HOSTS}


def _hosts(*arguments: str) -> None:
    done = run([sys.executable, PROGRAM, *arguments], timeout=900)
    if done.returncode:
        raise MeasurementError(f"hosts: {(done.stdout + done.stderr)[-2000:]}")
