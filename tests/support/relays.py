"""A bus for one test: a config directory, its addresses, and what runs by it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from . import programs
from .ports import free_address, free_port
from .programs import RELAY, ROOT, Program, environment
from .waiting import SLOWED, patient

# The default of the config's `timeout`, in seconds.
TIMEOUT = 2


class Bus:
    """A config directory, its addresses, and processes that run by it until the test ends."""

    def __init__(self, directory: Path, **keys: Any) -> None:
        self.directory = directory
        self.config_directory = directory / "fedmsg.d"
        self.config_directory.mkdir()
        self.inbound = free_address()
        self.outbound = free_address()
        self.configure(
            relay_inbound=[self.inbound], endpoints={"relay_outbound": [self.outbound]}, **keys
        )
        if SLOWED > 1:
            # As for a relay that is this slow: the first file, so that every other one wins.
            self.configure("00-slow", timeout=TIMEOUT * SLOWED)
        self._started: list[Program] = []

    def with_journal(self, *, http: bool = False, **keys: Any) -> None:
        """Give the relay a journal and a submit address and, if asked for, HTTP."""
        self.journal = self.directory / "journal.db"
        self.submit = free_address()
        self.http = f"127.0.0.1:{free_port()}"
        self.configure(
            "journal",
            relay_journal=str(self.journal),
            relay_submit=[self.submit],
            **({"relay_http": [self.http]} if http else {}),
            **keys,
        )

    def journaled(self) -> list[str]:
        """The msg_id of every row of the journal, in order: none before the relay has begun it."""
        try:
            # Not to be made by who only looks.
            with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as db:
                return [row[0] for row in db.execute("SELECT msg_id FROM message ORDER BY seq")]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "unable to open" in str(error):
                return []
            raise

    def configure(self, name: str = "base", /, **keys: Any) -> Path:
        """Write `NAME.py` of the config. Later names win, as everywhere."""
        path = self.config_directory / f"{name}.py"
        path.write_text(f"config = {keys!r}\n")
        return path

    def start(self, *command: str | Path, **env: str) -> Program:
        process = Program(self.directory, command, environment(**env))
        self._started.append(process)
        return process

    def relay(self, *options: str, ready: bool = True, **env: str) -> Program:
        """Our relay, once it is ready."""
        process = self.start(
            sys.executable, RELAY, "--config-filename", self.config_directory, *options, **env
        )
        if ready:
            process.wait_for_line("ready")
        return process

    def relay_with(self, patch: str) -> Program:
        """Start our relay after some Python has changed it, `relay.SUMMARY_PERIOD = 1`."""
        starter = self.directory / "patched" / RELAY.name
        starter.parent.mkdir()
        starter.write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport relay\n{patch}\n"
            f"sys.exit(relay.main(['--config-filename', {str(self.config_directory)!r}]))\n"
        )
        return self.start(sys.executable, starter)

    def tool(self, name: str, *options: str, **run: Any) -> subprocess.CompletedProcess[str]:
        """Run `fedmsg-NAME` of ours to its end."""
        env = environment(**run.pop("env", {}))
        return programs.run([*self.command(name), *options], env=env, cwd=self.directory, **run)

    PATIENT = ("--warning", "30000", "--critical", "40000", "--timeout", f"{patient(5):g}")

    def probe(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `fedmsg-probe` so that a busy machine's answers, which come late, are no warning."""
        return self.tool("probe", *self.PATIENT, *options)

    def command(self, name: str) -> list[str]:
        return programs.module(name, "--config-filename", str(self.config_directory))

    def stop(self) -> None:
        for process in self._started:
            process.kill()
