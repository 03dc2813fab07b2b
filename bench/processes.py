"""Programs that are measured or that measure, and what they have used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.support import programs

TICKS = os.sysconf("SC_CLK_TCK")


class MeasurementError(Exception):
    """A measurement could not be made: the text says why."""


class Program(programs.Program):
    """A program of a measurement, which cannot be made if it fails."""

    failure = MeasurementError

    def finish(self, timeout: float = 60.0) -> None:
        """Wait for it to end by itself, with status 0."""
        if status := self.wait_for_end(timeout):
            self.fail(f"ended with {status}")


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for task in tasks:
        try:
            children = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children.split():
            yield from family(int(child))


def cpu_seconds(pid: int, *, alone: bool = False) -> float:
    """User and system time of a process and its descendants, of those that have ended, too."""
    ticks = 0
    for member in [pid] if alone else family(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / TICKS


def peak_memory(pid: int) -> int:
    """The most bytes of memory (VmHWM) the process ever had, without its children."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise MeasurementError(f"process {pid} has no VmHWM")
