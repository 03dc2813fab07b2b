"""One way to start a program: its output, its end, and that nothing of it stays behind."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from . import slow
from .waiting import SLOWED, patient, wait_for

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
RELAY = ROOT / "relay.py"

# Those that have not been seen to end.
_running: set[Child] = set()


def environment(**extra: str) -> dict[str, str]:
    """For a child process: our package on the path, no config of this user's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FEDMSG_", "NOTIFY_"))}
    return {**inherited, "PYTHONPATH": str(ROOT / "files"), "PYTHONUNBUFFERED": "1", **extra}


def bare_environment(directory: Path, **extra: str) -> dict[str, str]:
    """For a program that shall see nothing of this user's: its home is `directory`."""
    return {
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "LOGNAME": "ralph",
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


def module(name: str, *options: str) -> list[str]:
    """The command of a program of ours: `fedmsg_relay.NAME`."""
    return [sys.executable, "-m", f"fedmsg_relay.{name}", *options]


class Child(subprocess.Popen[Any]):
    """A child process as `subprocess` knows it, which ends at the latest with the tests.

    A relay is slowed down if FEDMSG_TEST_SLOW says so. All else is as with Popen, and a child may
    be used in a `with` statement; unlike there, it is killed if the block fails.
    """

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        arguments = [str(part) for part in command]
        slowed = SLOWED > 1 and slow.is_relay(arguments)
        if slowed:
            options["start_new_session"] = True
        self._brake: subprocess.Popen[bytes] | None = None
        super().__init__(arguments, **options)
        _running.add(self)
        if slowed:
            self._brake = _brake(self.pid)

    def pause(self, pid: int | None = None) -> None:
        """SIGSTOP, as if it hung: to it alone, or only to a process that it has started."""
        self._order("stop", pid or self.pid, signal.SIGSTOP)
        # Where it runs on another processor, it does for a moment longer.
        wait_for(lambda: state(pid or self.pid) == "T", what="it to stop")

    def resume(self, pid: int | None = None) -> None:
        self._order("continue", pid or self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def poll(self) -> int | None:
        status = super().poll()
        if status is not None:
            self._ended()
        return status

    def wait(self, timeout: float | None = None) -> int:
        status = super().wait(timeout)
        self._ended()
        return status

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is not None and self.poll() is None:
            self.kill()
        super().__exit__(kind, error, traceback)

    def _order(self, order: str, pid: int, number: signal.Signals) -> None:
        if self._brake is None:
            os.kill(pid, number)
            return
        assert self._brake.stdin is not None and self._brake.stdout is not None
        self._brake.stdin.write(f"{order} {pid}\n".encode())
        self._brake.stdin.flush()
        self._brake.stdout.readline()

    def _ended(self) -> None:
        _running.discard(self)
        brake, self._brake = self._brake, None
        if brake is not None:
            brake.communicate()  # the end of its input is its own


def state(pid: int) -> str:
    """The state of a process as ps(1) has it: R, S, T if it is stopped, ..."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def _brake(group: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", slow.__name__, str(group), str(SLOWED)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


@atexit.register
def end_all() -> None:
    """Nothing that was started outlives this process."""
    for child in list(_running):
        child.kill()
        child.wait()


def run(
    command: Sequence[str | Path], *, timeout: float = 60.0, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`, by default with our environment, its output kept, and a patient limit."""
    if "stdout" not in options and "stderr" not in options:
        options.setdefault("capture_output", True)
    options.setdefault("env", environment())
    options.setdefault("text", True)
    return subprocess.run([str(part) for part in command], timeout=patient(timeout), **options)


class Program:
    """A program that runs in `directory`; what it prints goes to a file there.

    `apart`: its errors go to a file of their own. Raises `failure` where it does not do what is
    waited for.
    """

    failure: type[Exception] = AssertionError
    _numbers = itertools.count(1)

    def __init__(
        self,
        directory: Path,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        name: str = "",
        apart: bool = False,
        **options: Any,
    ) -> None:
        self.name = name or f"process-{next(self._numbers)}"
        self.command = [str(part) for part in command]
        self.log = directory / f"{self.name}.log"
        self._errors = directory / f"{self.name}.errors" if apart else None
        with contextlib.ExitStack() as files:
            output = files.enter_context(self.log.open("ab"))
            self.child = Child(
                self.command,
                cwd=directory,
                env=dict(env),
                stdout=output,
                stderr=files.enter_context(self._errors.open("ab"))
                if self._errors
                else subprocess.STDOUT,
                **{"stdin": subprocess.DEVNULL, **options},
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="backslashreplace")

    @property
    def errors(self) -> str:
        """What it wrote to standard error, of one started with `apart`."""
        assert self._errors is not None
        return self._errors.read_text(encoding="utf-8", errors="backslashreplace")

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self.child.poll()

    def is_running(self) -> bool:
        return self.exit_status is None

    def wait_for(self, condition: Callable[[], T], what: str = "", timeout: float = 20.0) -> T:
        """The first true value of `condition()`, but not for longer than the program runs."""

        def reached() -> T:
            # In this order: what it did last counts as well.
            running = self.is_running()
            value = condition()
            if not value and not running:
                self.fail(f"ended with {self.exit_status}, waiting for {what or condition}")
            return value

        return wait_for(reached, timeout, f"{what or condition} of {self.name}", error=self.failure)

    def wait_for_line(self, text: str, timeout: float = 20.0, count: int = 1) -> None:
        """Wait until it has printed `text` so often, on either stream."""
        self.wait_for(lambda: self._said().count(text) >= count, f"{text!r} in the output", timeout)

    def wait_for_end(self, timeout: float = 30.0) -> int:
        """Wait for it to end by itself; its exit status."""
        try:
            return self.child.wait(patient(timeout))
        except subprocess.TimeoutExpired:
            self.fail(f"has not ended within {patient(timeout):g} s")

    def pause(self) -> None:
        """Let it hang: SIGSTOP."""
        self.child.pause()

    def resume(self) -> None:
        self.child.resume()

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Let it hang until the end of the block."""
        return self.child.paused()

    def send_signal(self, number: int) -> None:
        self.child.send_signal(number)

    def terminate(self, timeout: float = 20.0) -> int:
        """SIGTERM; the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self.wait_for_end(timeout)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15.0) -> int:
        """End it, if it has not ended by itself, by force if it takes too long; its status."""
        if self.is_running():
            self.child.send_signal(number)
        try:
            return self.child.wait(patient(timeout))
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def kill(self) -> None:
        """SIGKILL, if it still runs; what it printed is shown if the test fails."""
        if self.is_running():
            self.child.kill()
        self.child.wait()
        self.show()

    def show(self) -> None:
        print(f"--- {' '.join(self.command)}\n{self._said()}")

    def fail(self, reason: str) -> NoReturn:
        raise self.failure(f"{self.name} {reason}: {self._said()[-2000:]}")

    def _said(self) -> str:
        return self.output + (self.errors if self._errors else "")
