"""How to run podman on this machine: the options that its cgroups and limits ask for.

Nothing here is assumed. Each fact is looked up, and on an ordinary machine (cgroups v2, a service
manager that grants resource limits) no option of ours is left over.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

CGROUP2_CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
PID_MAX = Path("/proc/sys/kernel/pid_max")
# What podman asks for when it may; more gains nothing.
NOFILE_WANTED = 1048576


class EngineError(Exception):
    """Podman is missing or cannot work here, or one of its commands failed."""


def podman(*arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
    """Run one podman command and return what it printed.

    Raises EngineError with podman's own words when it fails, unless `check` is false.
    """
    command = ["podman", *runtime_options(), *arguments]
    try:
        run = subprocess.run(command, input=stdin or b"", capture_output=True)
    except FileNotFoundError:
        raise EngineError("podman is not installed: run `make help`") from None
    if check and run.returncode != 0:
        words = run.stderr.decode(errors="replace").strip()
        raise EngineError(f"{' '.join(command[:6])} ... failed: {words}")
    return run.stdout.decode(errors="replace").strip()


def podman_json(*arguments: str) -> Any:
    """Run one podman command that prints JSON; an empty answer is an empty list."""
    return json.loads(podman(*arguments) or "[]") or []


def runtime_options() -> list[str]:
    """Choose the OCI runtime: crun, the usual default, refuses hybrid and v1 cgroups."""
    if not CGROUP2_CONTROLLERS.exists() and shutil.which("runc", path=_system_path()):
        return ["--runtime", "runc"]
    return []


def limit_options() -> list[str]:
    """Resource limits for containers that this process may pass on.

    Podman asks for very high ones, and a process without CAP_SYS_RESOURCE cannot raise its own. It
    also lowers its own limit of processes to the kernel's highest process ID before it starts one.
    """
    nofile = _hard_limit(resource.RLIMIT_NOFILE, NOFILE_WANTED)
    nproc = _hard_limit(resource.RLIMIT_NPROC, int(PID_MAX.read_text()))
    return ["--ulimit", f"nofile={nofile}:{nofile}", "--ulimit", f"nproc={nproc}:{nproc}"]


def require_network_names() -> None:
    """Raise EngineError unless podman's networks can resolve the names of their hosts."""
    backend = podman("info", "--format", "{{.Host.NetworkBackend}}")
    if backend != "netavark":
        raise EngineError(
            f"podman uses the network backend {backend!r}, whose networks have no names: install "
            "netavark and aardvark-dns, then set network_backend in containers.conf"
        )


def _hard_limit(which: int, highest: int) -> int:
    hard = resource.getrlimit(which)[1]
    return highest if hard == resource.RLIM_INFINITY else min(hard, highest)


def _system_path() -> str:
    # Runtimes live in sbin directories, which are not on every user's PATH.
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
