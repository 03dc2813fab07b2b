"""A sender and a listener around a subject, and the control over them."""

from __future__ import annotations

import json
import os
import sys
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.programs import ROOT
from tests.support.waiting import wait_for

from . import counters, listener, sender
from .processes import MeasurementError, Program, cpu_seconds
from .subjects import Subject, environment

# What may be on the way to all listeners together, in messages for each and in bytes: less than
# the shortest queue of any subject holds, and enough that none of them ever waits for the sender.
WINDOW_MESSAGES = 5_000
WINDOW_BYTES = 64 << 20
# Deliveries, on all connections together, from one time that a number is told to the next.
BLOCK = 100

# Seconds without progress after which what has not come will not.
STALLED = 10.0


@dataclass(frozen=True)
class Cpu:
    """Seconds of processor time: of the subject with its children and without, and of the load."""

    subject: float
    alone: float
    sender: float
    listener: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(
            self.subject - other.subject,
            self.alone - other.alone,
            self.sender - other.sender,
            self.listener - other.listener,
        )

    def each(self, messages: int) -> dict[str, float]:
        """Microseconds a message, by party."""
        return {party: seconds / messages * 1e6 for party, seconds in asdict(self).items()}


class Load:
    """Use it in a `with` block: on entry every connection has been heard on.

    With a `rate`, so many messages a second by the clock, with times; with a `burst`, so many as
    fast as the sender can; else as fast as the listener can, see WINDOW_MESSAGES. `ordinary`: both
    use pyzmq as programs do.
    """

    def __init__(
        self,
        subject: Subject,
        size: int,
        listeners: int = 1,
        *,
        rate: float = 0.0,
        burst: int = 0,
        reconnect: tuple[int, int] = sender.RECONNECT,
        ordinary: bool = False,
    ) -> None:
        self._subject = subject
        self._listeners = listeners
        self._directory = subject.directory
        self._counters = counters.create()
        path = counters.path_of(self._counters)
        self._shared = counters.attach(path)
        self._report = self._directory / "heard.json"
        self._times = self._directory / "times"
        window = max(2, min(WINDOW_MESSAGES, WINDOW_BYTES // (size * listeners)))
        block = max(1, min(BLOCK // listeners, window // 4))
        self._listener_order = listener.Order(
            subject.outbound, path, str(self._report), listeners, block * listeners,
            str(self._times) if rate else None, reconnect, ordinary,
        )  # fmt: skip
        self._sender_order = sender.Order(
            subject.inbound, path, size, listeners, burst or window, block, rate, burst, reconnect,
            ordinary,
        )  # fmt: skip
        self._journaled = subject.journaled()
        self._programs: list[Program] = []

    def __enter__(self) -> Load:
        try:
            self._listener = self._start("listener", asdict(self._listener_order))
            self._sender = self._start("sender", asdict(self._sender_order))
            self._wait_for(counters.STARTED)
            self._wait_for(counters.PAUSED)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shared[counters.STOP] = 1
        for program in self._programs:
            program.stop()
        os.close(self._counters)

    @property
    def sent(self) -> int:
        return self._shared[counters.SENT]

    @sent.setter
    def sent(self, messages: int) -> None:
        """For who sends by other means, while the sender rests."""
        self._shared[counters.SENT] = messages

    @property
    def received(self) -> int:
        """On all connections together."""
        return self._shared[counters.RECEIVED]

    @property
    def journaled(self) -> int | None:
        """How many of them are on disk; None without a journal."""
        found = self._subject.journaled()
        if found is None or self._journaled is None:
            return None
        return found - self._journaled - self._shared[counters.PREPARED]

    @property
    def stamp(self) -> float:
        """When the last message was received, by time.monotonic()."""
        return self._shared[counters.STAMP] / 1e9

    def cpu(self) -> Cpu:
        subject = self._subject.pid
        return Cpu(
            cpu_seconds(subject),
            cpu_seconds(subject, alone=True),
            cpu_seconds(self._sender.pid),
            cpu_seconds(self._listener.pid),
        )

    def go(self) -> None:
        self._shared[counters.GO] = 1
        self._shared[counters.PAUSED] = 0

    def pause(self, stalled: float = STALLED) -> bool:
        """Send no more, and wait for what is under way. False if something does not come."""
        self._shared[counters.GO] = 0
        self._wait_for(counters.PAUSED)
        seen, since = self.received, time.monotonic()
        while self.received < self.sent * self._listeners:
            if self.received != seen:
                seen, since = self.received, time.monotonic()
            if time.monotonic() - since > stalled:
                return False
            time.sleep(0.002)
        return True

    def run_for(self, seconds: float) -> bool:
        """Send for so long, and wait for what is under way then."""
        self.go()
        time.sleep(seconds)
        return self.pause()

    def finish(self) -> dict[str, Any]:
        """End it. What was `received`, what is `missing` and `doubled`, on all connections."""
        self._shared[counters.STOP] = 1
        for program in (self._sender, self._listener):
            program.finish()
        report: dict[str, Any] = json.loads(self._report.read_text(encoding="utf-8"))
        return report

    def times(self) -> tuple[array[int], array[int]]:
        """After `finish()`: when each message was due, and when it arrived, in ns."""
        pairs = array("q")
        pairs.frombytes(self._times.read_bytes())
        return pairs[::2], pairs[1::2]

    def _wait_for(self, slot: int) -> None:
        def reached() -> int:
            for program in (*self._programs, self._subject.program):
                if not program.is_running():
                    program.fail(f"ended with {program.exit_status}")
            return self._shared[slot]

        what = f"the load of {self._subject.name}"
        wait_for(reached, 60, what, pause=0.005, error=MeasurementError)

    def _start(self, name: str, order: dict[str, Any]) -> Program:
        command: list[str | Path] = [sys.executable, "-m", f"bench.{name}", json.dumps(order)]
        env = environment(self._directory, PYTHONPATH=str(ROOT))
        program = Program(self._directory, command, env, name=name)
        self._programs.append(program)
        return program
