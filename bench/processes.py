"""Programs that are measured or that measure: started, awaited, ended, and what they have used."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


class MeasurementError(Exception):
    """A measurement could not be made: the text says why."""


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """The first true value of `condition()`. Raises MeasurementError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise MeasurementError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.005)
    return value


class Program:
    """A child process in `directory`; what it prints goes to `NAME.log` there."""

    def __init__(
        self, name: str, command: list[str | Path], directory: Path, env: dict[str, str]
    ) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        with self._log.open("ab") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def output(self) -> str:
        return self._log.read_text(errors="backslashreplace")

    def wait_for(self, condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
        """As `wait_for`, but not for longer than the program runs."""

        def reached() -> Any:
            value = condition()
            if not value and self.child.poll() is not None:
                self.fail(f"ended with {self.child.returncode}")
            return value

        return wait_for(reached, f"{what} of {self.name}", timeout)

    def fail(self, reason: str) -> NoReturn:
        raise MeasurementError(f"{self.name} {reason}: {self.output[-2000:]}")

    def wait_for_end(self, timeout: float = 60.0) -> None:
        """Wait for it to end by itself, with status 0."""
        try:
            status = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"has not ended within {timeout:g} s")
        if status:
            self.fail(f"ended with {status}")

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, and SIGKILL to one that takes too long."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


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
