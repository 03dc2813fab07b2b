"""Programs that print or record what they hear, and what they have heard."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.programs import Program

# What logging puts before each line by default, upstream's and ours, and before what they print.
HEADER = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]\[ *(\S+ +[A-Z]+)\] ", re.M)
PRINTED = "fedmsg.commands    INFO"
COLOUR = re.compile(r"\x1b\[[\d;]*m")

# A topic to send on while waiting for a path to open. Every fedmsg-tail hides heartbeats.
HIDDEN = "peer._heartbeat"


class Tail(Program):
    """fedmsg-tail, upstream's or ours."""

    @property
    def output(self) -> str:
        # As it came, so that what was printed can be compared byte for byte.
        return self.log.read_text(encoding="utf-8", errors="surrogateescape")

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


class Hub(Program):
    """fedmsg-hub with the consumer of upstream/recorder.py."""

    def __init__(
        self,
        directory: Path,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        name: str,
        **options: Any,
    ) -> None:
        self._recorded = directory / f"{name}.recorded"
        self._recorded.touch()
        env = {**env, "RECORDED": str(self._recorded)}
        super().__init__(directory, command, env, name=name, **options)

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
