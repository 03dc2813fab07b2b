"""A disk that stalls, for one program and its children, without a device and without rights.

strace holds up the system calls that wait for the disk. With a seccomp filter the kernel asks it
about these only, so that everything else runs as fast as ever. It runs beside the program, whose
process ID is that of the command, and ends with it.
"""

from __future__ import annotations

import shutil

from .processes import MeasurementError

# What SQLite waits for the disk with.
CALLS = "fdatasync,fsync"

# strace stops a new thread at every call until it has met the first one of the filter (6.1). This
# is one that every thread makes at its start.
FIRST_CALL = "set_robust_list"


def under(stall: float) -> list[str]:
    """Start a command as the arguments of this one: each wait for the disk takes `stall` seconds.

    Raises MeasurementError where there is no strace; `tools/setup/packages faults` installs it.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise MeasurementError("there is no strace here, which makes a disk slow")
    injected = f"inject={CALLS}:delay_enter={int(stall * 1e6)}"
    quiet = ["--quiet=all", "--output=/dev/null"]
    return [
        strace,
        "-D",
        "-f",
        "--seccomp-bpf",
        *quiet,
        "-e",
        f"trace={CALLS},{FIRST_CALL}",
        "-e",
        injected,
    ]
