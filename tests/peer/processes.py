"""Processes of a test: their output goes to files, they end by their own pid."""

from __future__ import annotations

import ast
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, TypeVar

T = TypeVar("T")

# What logging puts before each line by default, upstream's and ours, and before what they print.
HEADER = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]\[ *(\S+ +[A-Z]+)\] ", re.M)
PRINTED = "fedmsg.commands    INFO"
COLOUR = re.compile(r"\x1b\[[\d;]*m")

# A topic to send on while waiting for a path to open. Every fedmsg-tail hides heartbeats.
HIDDEN = "peer._heartbeat"


def wait_until(condition: Callable[[], T], what: str, seconds: float = 30) -> T:
    """Return the first true value of `condition()`; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} seconds still not: {what}")
        time.sleep(0.02)
    return value


class Process:
    """A program that runs until `stop()`, with `directory` as its working directory."""

    def __init__(
        self, name: str, command: list[str], directory: Path, environment: dict[str, str]
    ) -> None:
        self.name = name
        self._stdout = directory / f"{name}.stdout"
        self._stderr = directory / f"{name}.stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        return self._stdout.read_text(encoding="utf-8", errors="surrogateescape")

    @property
    def errors(self) -> str:
        return self._stderr.read_text(encoding="utf-8", errors="surrogateescape")

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until it has printed `text` so often, on either stream."""

        def printed() -> bool:
            if (self.output + self.errors).count(text) >= count:
                return True
            assert self.exit_status is None, (
                f"{self.name} ended with {self.exit_status} and has not printed {text!r}:"
                f" {self.errors[-2000:]}"
            )
            return False

        wait_until(printed, f"{self.name} prints {text!r}, {count} times")

    def wait_for_end(self, seconds: float = 30) -> int:
        return self._popen.wait(seconds)

    def send_signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, if it has not ended by itself, and return its exit status."""
        if self.exit_status is None:
            self._popen.send_signal(number)
        try:
            return self._popen.wait(15)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


class Tail(Process):
    """fedmsg-tail, upstream's or ours."""

    def records(self) -> list[str]:
        """What it printed for each message, without the header with the time."""
        output = self.output
        headers = list(HEADER.finditer(output))
        ends = [header.start() for header in headers[1:]] + [len(output)]
        return [
            output[header.end() : end] for header, end in zip(headers, ends) if header[1] == PRINTED
        ]

    def messages(self) -> list[dict[str, Any]]:
        """The same, read back: plain and --pretty print Python, --really-pretty JSON in colour."""
        return [_parsed(COLOUR.sub("", record).strip()) for record in self.records()]


class Hub(Process):
    """fedmsg-hub with the consumer of upstream/recorder.py."""

    def __init__(
        self, name: str, command: list[str], directory: Path, environment: dict[str, str]
    ) -> None:
        self._recorded = directory / f"{name}.recorded"
        self._recorded.touch()
        super().__init__(name, command, directory, {**environment, "RECORDED": str(self._recorded)})

    @property
    def output(self) -> str:
        """What the consumer was given, then what the hub logged."""
        return self._recorded.read_text() + super().output

    def received(self) -> list[dict[str, Any]]:
        """What moksha hands to a consumer for each message: `{"topic": ..., "body": ...}`."""
        received = [json.loads(line) for line in self._recorded.read_text().splitlines()]
        return [message for message in received if message["topic"] != HIDDEN]

    def messages(self) -> list[dict[str, Any]]:
        return [message["body"] for message in self.received()]


def _parsed(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        message = ast.literal_eval(text)
    assert isinstance(message, dict)
    return message
