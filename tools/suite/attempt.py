"""One run of one piece: a process, its log, and which tests it ran."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import junit
from .plan import LOGS, ROOT, Piece

# Parts of pytest's alone, of which what failed can be run without the rest.
OF_PYTEST = ("unit", "integration", "peer", "servers", "amqp", "guard")
# `make test ARGS=changed` hands its variables on to every make below it.
OF_ANOTHER_MAKE = ("ARGS", "TESTS", "SCENARIO", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL")
# Seconds in which what is stopped can clean up.
GRACE = 20
SHARED = LOGS / "sop-shared"

_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()
_stopped = threading.Event()


@dataclass(frozen=True)
class Attempt:
    """`text`: what it printed; `tests`: those that ran, by name."""

    status: int
    seconds: float
    text: str
    tests: dict[str, junit.Test] = field(default_factory=dict)
    stopped: bool = False


def run(piece: Piece, number: int, shown: bool) -> Attempt:
    LOGS.mkdir(parents=True, exist_ok=True)
    report = piece.report(number)
    report.unlink(missing_ok=True)
    command = piece.command()
    if number > 1 and piece.part in OF_PYTEST:
        command.append("ARGS=--last-failed")
    started = time.monotonic()
    log = piece.log if number == 1 else piece.log.with_suffix(f".{number}.log")
    status = _process(command, _environment(piece, report), log, piece.most, shown=shown)
    seconds = time.monotonic() - started
    text = log.read_text(errors="replace")
    return Attempt(status, seconds, text, junit.read(report), stopped=seconds > piece.most)


def _environment(piece: Piece, report: Path) -> dict[str, str]:
    # Plain text: the log is read by people and by patterns.
    made = {
        **{key: value for key, value in os.environ.items() if key not in OF_ANOTHER_MAKE},
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "PY_COLORS": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    options = [f"--junitxml={report}", "-o junit_family=xunit1", "-o junit_logging=no"]
    if piece.part in OF_PYTEST:
        # Each remembers its own failures.
        options.append(f"-o cache_dir={ROOT}/.pytest_cache/{piece.part}")
    made["PYTEST_ADDOPTS"] = " ".join(options)
    if piece.part == "sop":
        made |= {"SOP_HOSTS": "destroy", "SOP_SET": piece.of, "SOP_SHARED": str(SHARED)}
    return made


def _process(
    command: list[str], environment: dict[str, str], log: Path, limit: float, *, shown: bool
) -> int:
    """Run it to its end, or to that of its time; its exit status."""
    with log.open("wb") as kept:
        with _lock:
            if _stopped.is_set():
                return 130
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A group of its own, so that all of a piece that hangs can be stopped.
                start_new_session=True,
            )
            _running.add(process)
        stopper = threading.Timer(limit, _stop, [process])
        stopper.daemon = True
        stopper.start()
        try:
            for line in process.stdout or ():
                kept.write(line)
                # Whoever waits looks at the log.
                kept.flush()
                if shown:
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()
            return process.wait()
        finally:
            stopper.cancel()
            with _lock:
                _running.discard(process)


def stop_all() -> None:
    """End everything that runs, first so that it can clean up; nothing begins any more."""
    _stopped.set()
    with _lock:
        processes = list(_running)
    stoppers = [threading.Thread(target=_stop, args=[process]) for process in processes]
    for each in stoppers:
        each.start()
    for each in stoppers:
        each.join()


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
