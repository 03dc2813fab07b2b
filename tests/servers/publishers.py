"""A bus whose publishers are a server's processes, and what must be true of it in the end."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.conftest import Bus, Process

PROGRAMS = Path(__file__).parent / "programs"
# Whoever publishes notes there what `publish()` has returned for: see programs/numbered.py.
RETURNED = "returned"


class Publishers:
    """The relay of `bus`, and programs of the servers' environment that publish numbers."""

    def __init__(self, bus: Bus, venv: Path, spool: Path) -> None:
        self.bus = bus
        self.spool = spool
        self._venv = venv
        self._relay = bus.relay()
        (bus.directory / RETURNED).touch()

    def start(self, program: str, *options: str) -> Process:
        """Start a program of the servers' environment."""
        variables = {
            "FEDMSG_CONFIG": str(self.bus.config_directory),
            "RETURNED": str(self.bus.directory / RETURNED),
        }
        return self.bus.start(self._venv / "bin" / program, *options, **variables)

    def returned(self) -> list[int]:
        """The numbers for which `publish()` has returned so far."""
        return [int(line) for line in (self.bus.directory / RETURNED).read_text().split()]

    def restart_relay(self) -> None:
        self._relay.terminate()
        self._relay = self.bus.relay()

    def kill_relay(self) -> None:
        self._relay.kill()
        self._relay = self.bus.relay()

    def journaled(self) -> Counter[int]:
        """How often the journal has each number."""
        with closing(sqlite3.connect(self.bus.journal)) as database:
            rows = database.execute("SELECT body FROM message").fetchall()
        return Counter(json.loads(body)["msg"]["n"] for (body,) in rows)

    def check(self, least: int) -> None:
        """`publish()` returned `least` times, and for each time the journal has one message."""
        returned = self.returned()
        assert len(set(returned)) == len(returned) >= least
        # What a relay did not acknowledge while it was away.
        drained = self.bus.tool("logger", "--drain")
        assert drained.returncode == 0, drained.stderr
        journaled = self.journaled()
        assert sorted(set(returned) - set(journaled)) == []
        assert [number for number, times in journaled.items() if times > 1] == []


def children(process: Process) -> list[int]:
    """The processes that a server has started."""
    # By the thread that has forked each.
    listed = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for each in listed for pid in each.read_text(encoding="ascii").split()]
